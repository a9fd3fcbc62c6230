/** What is expected of an agent that was installed into a clean system, whatever brought it there. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import {
  type Collector,
  countersSamplesOf,
  flowSamplesOf,
  type Lab,
  listen,
  sendFlow,
  sink,
  until,
} from '../support/lab.ts'
import type { Root } from './root.ts'

const TRAFFIC_PORT = 7000
/** Started as root, the agent becomes this user. */
export const USER = 'weir'

export function collectorOf(t: TestContext, lab: Lab): Collector {
  sink(t, lab.peer.namespace, { address: lab.peer.eth0.ipv4, port: TRAFFIC_PORT })
  return listen(t, lab.peer.namespace, { address: lab.peer.mgmt0.ipv4, port: SFLOW_PORT })
}

export function configuration(lab: Lab): string {
  return `sFlow { polling = 1 collector { ip = ${lab.peer.mgmt0.ipv4} } pcap { dev = eth0 sampling = 1 } }\n`
}

/** Counters and flows come from the agent of this lab. */
export async function expectSamples(lab: Lab, collector: Collector): Promise<void> {
  collector.arrivals.length = 0
  await until('counters samples', () => countersSamplesOf(collector, { type: 2, index: 1 })[0])
  const to = { address: lab.peer.eth0.ipv4, port: TRAFFIC_PORT }
  await until('flow samples', () => {
    sendFlow(lab.host.namespace, {
      from: { address: lab.host.eth0.ipv4, port: TRAFFIC_PORT },
      to,
      payloadBytes: 100,
      packets: 5,
    })
    return flowSamplesOf(collector)[0]
  })
}

/** The process id of the agent that runs in the root. */
export function agentOf(root: Root): number {
  return Number(readFileSync(join(root.path, 'run/weir/weir.pid'), 'utf8').split('\n')[0])
}

export function status(pid: number, field: string): string {
  return new RegExp(`^${field}:\\s*(.*)$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]!
}

/** Those of `files` that are not among the others. */
export function difference(files: readonly string[], others: readonly string[]): string[] {
  const known = new Set(others)
  return files.filter(file => !known.has(file))
}

/** The process has ended: it is gone, or only its parent, this machine's first process, has not taken notice yet. */
export function assertEnded(pid: number): void {
  const isLeft = existsSync(`/proc/${pid}`) && !status(pid, 'State').startsWith('Z')
  assert.equal(isLeft, false, `process ${pid} runs on`)
}
