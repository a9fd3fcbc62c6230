/** What of a configuration is right by itself and doubtful on the machine it stands on. */

import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Config } from '../config/config.ts'
import { pcapDecisions } from '../config/pcap-rule.ts'
import { nearest, type Place, type Problem } from '../config/problem.ts'
import { overridingRate } from '../config/sampling-rate.ts'
import { createLogger } from '../health/log.ts'
import { type Interface, Interfaces } from '../interfaces.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../kernel/netlink-socket.ts'
import { keyOfAction } from '../sources/tc-plan.ts'
import { selectPorts } from '../sources/tc-ports.ts'
import { dumpSampleActions, readSampleActions, type SampleAction } from '../wire/netlink/tc.ts'

/** What is asked of the machine. */
export interface Machine {
  readonly interfaces: ReadonlyMap<number, Interface>
  /** Addresses of all interfaces. */
  readonly addresses: ReadonlySet<string>
  /** Whether there is a file. */
  exists(path: string): boolean
  /** tc's sample actions, whoever placed them. */
  readonly sampleActions: readonly SampleAction[]
  /** NFLOG groups that a program has taken which is not weir. */
  readonly nflogGroups: ReadonlySet<number>
  /** Process id of an hsflowd that runs; undefined when there is none. */
  readonly hsflowd: number | undefined
}

/** Asks the kernel; what it does not answer is left out. Needs no privilege and changes nothing. */
export async function describeNetwork(): Promise<Machine> {
  const interfaces = new Interfaces({ log: createLogger('silent') })
  await interfaces.start()
  interfaces.stop()
  return {
    interfaces: interfaces.byIndex,
    addresses: new Set(interfaces.localAddresses().map(({ address }) => address)),
    exists: existsSync,
    sampleActions: await listSampleActions(),
    nflogGroups: takenNflogGroups(),
    hsflowd: runningHsflowd(),
  }
}

/**
 * A group has one taker. nfnetlink_log tells its netlink port (net/netfilter/nfnetlink_log.c, seq_show), which is the
 * process's id where that opened one socket of this family, as weir does.
 */
function takenNflogGroups(): Set<number> {
  try {
    const rows = readFileSync('/proc/net/netfilter/nfnetlink_log', 'utf8').trim().split('\n')
    const takers = rows.map(row => row.trim().split(/\s+/).map(Number)).filter(row => row.length > 1)
    return new Set(takers.filter(([, port]) => !isWeir(port!)).map(([group]) => group!))
  } catch {
    return new Set()
  }
}

/** Whether a process runs the program that this one runs, too. */
function isWeir(pid: number): boolean {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
    return words.some(word => word !== '' && resolve(word) === process.argv[1])
  } catch {
    return false
  }
}

async function listSampleActions(): Promise<SampleAction[]> {
  const socket = NetlinkSocket.open(NETLINK_ROUTE)
  try {
    const messages = await socket.dump(dumpSampleActions(), 'list sample actions')
    return messages.flatMap(readSampleActions)
  } catch {
    return []
  } finally {
    socket.close()
  }
}

function runningHsflowd(): number | undefined {
  try {
    const pid = Number.parseInt(readFileSync('/run/hsflowd.pid', 'utf8'), 10)
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === 'hsflowd' ? pid : undefined
  } catch {
    return undefined
  }
}

/** Warnings, each at the setting that causes it. `places` is where the file has what. */
export function doubtsOf(config: Config, places: ReadonlyMap<string, Place>, machine: Machine): Problem[] {
  const doubts: Problem[] = []
  const doubt = (path: string, message: string, suggestion?: string) => {
    const { line, column, length } = places.get(path) ?? { line: 1, column: 1, length: 0 }
    const more = suggestion === undefined ? {} : { suggestion }
    doubts.push({ severity: 'warning', line, column, length, message, ...more })
  }
  const { interfaces, addresses } = machine
  const ports = [...interfaces.values()]
  const names = ports.map(({ name }) => name)
  const needsInterface = (path: string, name: string | undefined) => {
    if (name === undefined || names.includes(name)) return
    doubt(path, `there is no interface ${name} now`, nearest(name, names))
  }

  if (machine.hsflowd !== undefined) {
    const who = `hsflowd runs too, process ${machine.hsflowd}`
    doubt('sFlow', `${who}: while both do, collectors count this machine twice`)
  }
  const { agent, collectors, discovery, psample, tc, pcap, nflog, subAgentId } = config
  if (agent.device !== undefined && !ports.some(({ alias }) => alias === agent.device)) {
    needsInterface('agent', agent.device)
  }
  if (discovery === undefined) {
    collectors.forEach(({ device, namespace, source }, i) => {
      const path = `collector[${i}]`
      if (namespace !== undefined) {
        const file = namespace.includes('/') ? namespace : `/var/run/netns/${namespace}`
        if (!machine.exists(file)) doubt(`${path}.namespace`, `there is no network namespace ${file} now`)
        // What is in there is not seen from here.
        return
      }
      needsInterface(places.has(`${path}.dev`) ? `${path}.dev` : `${path}.vrf`, device)
      if (source !== undefined && !addresses.has(source)) {
        doubt(`${path}.source`, `no interface has the address ${source} now: nothing can be sent from it`)
      }
    })
  }

  pcap.forEach(({ device, devicePattern }, i) => {
    needsInterface(`pcap[${i}].dev`, device)
    if (
      device === undefined &&
      devicePattern !== undefined &&
      !names.some(name => devicePattern.test(name))
    ) {
      doubt(`pcap[${i}].dev.pattern`, 'no interface matches now')
    }
  })
  if (nflog !== undefined && machine.nflogGroups.has(nflog.group)) {
    doubt('nflog.group', `NFLOG group ${nflog.group} is taken by another program now`)
  }
  const tcPorts = tc === undefined || psample === undefined ? [] : selectPorts(interfaces, tc)
  const chosen = tcPorts.filter(({ selected }) => selected)
  if (tc !== undefined && tcPorts.length > 0 && chosen.length === 0) {
    doubt(tc.switchportGiven ? 'dent.switchport' : 'dent', 'no interface is a port for tc samplers now')
  }
  const byPcap = pcapDecisions(pcap, interfaces)
  for (const { name, ifIndex } of chosen) {
    const { rule, index } = byPcap.get(ifIndex)!
    if (rule === undefined) continue
    doubt(`pcap[${index}]`, `${name} is sampled by tc too: collectors count its packets twice`)
  }
  if (discovery === undefined && places.has('sampling')) {
    const ports = new Set(chosen.map(({ ifIndex }) => interfaces.get(ifIndex)!))
    for (const [ifIndex, { rule }] of byPcap) {
      if (rule !== undefined && rule.sampling === undefined) ports.add(interfaces.get(ifIndex)!)
    }
    const others = [...ports].flatMap(port => {
      const rate = overridingRate(config, port)
      return rate === undefined ? [] : [{ name: port.name, ...rate }]
    })
    const [first] = others
    if (first !== undefined) {
      const more = others.length === 1 ? '' : `, and ${others.length - 1} more by theirs`
      const text = `${first.name} is sampled 1 in ${first.rate} by its speed (${first.rule})${more}`
      doubt('sampling', `${text}; sampling.bps_ratio = 0 takes this rate for all`)
    }
  }
  if (psample !== undefined && tc !== undefined) {
    const wanted = [psample.ingress ? psample.group : 0, psample.egress ? psample.group + 1 : 0]
    for (const group of wanted.filter(one => one > 0)) {
      const foreign = machine.sampleActions.filter(
        action => action.group === group && keyOfAction(action, subAgentId) < 0,
      )
      if (foreign.length === 0) continue
      const many = foreign.length === 1 ? 'a tc sampler' : `${foreign.length} tc samplers`
      const path = places.has('psample.group') ? 'psample.group' : 'psample'
      doubt(path, `PSAMPLE group ${group} is used by ${many} of another program: those samples come too`)
    }
  }
  return doubts
}
