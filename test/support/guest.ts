/** What tests need that run in a virtual machine (test/vm): modules, interfaces, a simulated switch. */

import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'

/** What removes things again: a test context, or node:test's own `after` for a whole file. */
export interface Scope {
  after(cleanup: () => void): void
}

/** True inside a guest. Tests that change the machine's network ask first. */
export const inGuest = process.env.WEIR_VM !== undefined

/** True when the kernel is this version or a newer one. */
export function kernelAtLeast(major: number, minor: number): boolean {
  const [, thisMajor, thisMinor] = /^(\d+)\.(\d+)/.exec(release())!
  return Number(thisMajor) > major || (Number(thisMajor) === major && Number(thisMinor) >= minor)
}

/**
 * Runs a program to its end and gives its standard output. The event loop stands still meanwhile.
 * @throws Error with what the program wrote to standard error, when it fails.
 */
export function run(program: string, ...parameters: string[]): string {
  return execFileSync(program, parameters, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

/** `ip` with a command line, e.g. ip('link add a type dummy'). */
export function ip(line: string): string {
  return run('ip', ...line.split(' '))
}

/** `tc` with a command line. */
export function tc(line: string): string {
  return run('tc', ...line.split(' '))
}

export function modprobe(...names: string[]): void {
  run('modprobe', '-a', ...names)
}

/** Unloads a module that nothing uses any more; the kernel frees some users with a delay, so this asks again. */
export function unload(name: string): void {
  for (let attempt = 1; existsSync(`/sys/module/${name}`); attempt++) {
    try {
      run('modprobe', '-r', name)
    } catch (error) {
      if (attempt === 20) throw error
      run('sleep', '0.1')
    }
  }
}

export function ifIndex(name: string): number {
  return Number(readFileSync(`/sys/class/net/${name}/ifindex`, 'utf8'))
}

/**
 * Makes a neighbour to exchange packets with: the veth `name` here with 192.0.2.1/24, and its other end `<name>p`
 * with 192.0.2.2/24 in a network namespace of its own. Both are up, know each other's address already, and send
 * nothing by themselves (IPv6 is off), so that packets can be counted.
 */
export function neighbour(scope: Scope, name: string): void {
  const peer = `${name}p`
  const peerNamespace = `weir-V-${name}`
  ip(`netns add ${peerNamespace}`)
  scope.after(() => ip(`netns del ${peerNamespace}`))
  ip(`link add ${name} type veth peer name ${peer} netns ${peerNamespace}`)
  const mac = (place: string, device: string) =>
    /link\/ether (\S+)/.exec(ip(`${place} link show ${device}`.trim()))![1]!
  const there = `-n ${peerNamespace}`
  writeFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '1')
  run('ip', 'netns', 'exec', peerNamespace, 'sysctl', '-qw', `net.ipv6.conf.${peer}.disable_ipv6=1`)
  ip(`address add 192.0.2.1/24 dev ${name}`)
  ip(`${there} address add 192.0.2.2/24 dev ${peer}`)
  ip(`link set ${name} up`)
  ip(`${there} link set ${peer} up`)
  ip(`neighbour add 192.0.2.2 lladdr ${mac(there, peer)} dev ${name}`)
  ip(`${there} neighbour add 192.0.2.1 lladdr ${mac('', name)} dev ${peer}`)
}

/** Sends `count` echo requests to 192.0.2.2 as fast as the replies come: that many packets leave and arrive. */
export function ping(count: number): void {
  const report = run('ping', '-f', '-q', '-c', String(count), '-s', '100', '192.0.2.2')
  if (!report.includes(`${count} packets transmitted, ${count} received`)) throw new Error(report)
}

/** A tc sampler as an operator would place it; it removes itself with the interface. */
export function sampler(
  name: string,
  direction: 'ingress' | 'egress',
  { rate, group, truncate = 128 }: { rate: number; group: number; truncate?: number },
): void {
  if (!tc(`qdisc show dev ${name}`).includes('clsact')) tc(`qdisc add dev ${name} clsact`)
  const action = `action sample rate ${rate} group ${group} trunc ${truncate} continue`
  tc(`filter add dev ${name} ${direction} matchall ${action}`)
}

/** Knobs of netdevsim's PSAMPLE generator, which emits ten samples a second (drivers/net/netdevsim/psample.c). */
export interface PsampleKnobs {
  readonly group_num?: number
  readonly rate?: number
  /** 0 leaves the packet (142 bytes) whole. */
  readonly trunc_size?: number
  /** 0 leaves the attribute out. */
  readonly in_ifindex?: number
  readonly out_ifindex?: number
  /** 65535 leaves the attribute out. */
  readonly out_tc?: number
  /** A power of two: values are random and below it. 0 leaves the attribute out. */
  readonly out_tc_occ_max?: number | bigint
  readonly latency_max?: number | bigint
}

/** A simulated switch. */
export interface Switch {
  /** Its devlink name, e.g. `netdevsim/netdevsim10`. */
  readonly devlink: string
  /** Names of its ports; they are up. */
  readonly ports: readonly string[]
  /** Starts the samples, with these knobs set and the others as they are. */
  startSamples(knobs: PsampleKnobs): void
  stopSamples(): void
  /** Takes the switch away before the end of its scope. */
  remove(): void
}

/** Makes a simulated switch with this number of ports. */
export function netdevsim(scope: Scope, id: number, ports: number): Switch {
  modprobe('netdevsim')
  writeFileSync('/sys/bus/netdevsim/new_device', `${id} ${ports}`)
  const remove = () => {
    if (existsSync(`/sys/bus/netdevsim/devices/netdevsim${id}`)) {
      writeFileSync('/sys/bus/netdevsim/del_device', String(id))
    }
  }
  scope.after(remove)
  const names = readdirSync(`/sys/bus/netdevsim/devices/netdevsim${id}/net`).sort()
  for (const name of names) ip(`link set ${name} up`)
  const knobs = `/sys/kernel/debug/netdevsim/netdevsim${id}/psample`
  return {
    devlink: `netdevsim/netdevsim${id}`,
    ports: names,
    startSamples(values) {
      for (const [knob, value] of Object.entries(values)) writeFileSync(join(knobs, knob), String(value))
      writeFileSync(join(knobs, 'enable'), '1')
    },
    stopSamples() {
      writeFileSync(join(knobs, 'enable'), '0')
    },
    remove,
  }
}

/** Waits until `condition` holds. @throws Error naming `what` after `timeoutMs`. */
export async function until(what: string, condition: () => boolean, timeoutMs = 60_000): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${timeoutMs} ms`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}
