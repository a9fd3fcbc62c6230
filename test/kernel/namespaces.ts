import { execFileSync } from 'node:child_process'
import type { TestContext } from 'node:test'

/** Network namespaces for tests; each is removed when its test ends. */

let made = 0

export function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

/** Many commands in one run of ip; `lines` as for `ip -batch`. */
export function ipBatch(namespace: string, lines: readonly string[]): void {
  execFileSync('ip', ['-n', namespace, '-batch', '-'], {
    input: lines.join('\n'),
    stdio: ['pipe', 'ignore', 'pipe'],
  })
}

export function makeNamespace(t: TestContext): string {
  const name = `weir-n-${process.pid}-${++made}`
  ip('netns', 'add', name)
  t.after(() => ip('netns', 'del', name))
  ip('-n', name, 'link', 'set', 'lo', 'up')
  return name
}

/** One end of a cable. */
export interface End {
  readonly namespace: string
  readonly device: string
  readonly ifIndex: number
  readonly mac: string
  readonly ipv4: string
}

/**
 * Two namespaces and the cable between them, with fixed neighbours and without IPv6, so that no packet runs over it
 * but those of the test.
 */
export function makeCable(t: TestContext): [End, End] {
  const ends = [makeNamespace(t), makeNamespace(t)].map((namespace, i) => ({
    namespace,
    device: 'eth0',
    ifIndex: 11 + i,
    mac: `02:00:00:00:00:0${i + 1}`,
    ipv4: `192.0.2.${i + 1}`,
  })) as [End, End]
  const [a, b] = ends
  const end = ({ namespace, device, mac, ifIndex }: End) => [
    'name',
    device,
    'address',
    mac,
    'index',
    `${ifIndex}`,
    'netns',
    namespace,
  ]
  ip('link', 'add', ...end(a), 'type', 'veth', 'peer', ...end(b))
  for (const [here, there] of [ends, [b, a]] as [End, End][]) {
    ipBatch(here.namespace, [
      `link set ${here.device} addrgenmode none`,
      `link set ${here.device} up`,
      `address add ${here.ipv4}/24 dev ${here.device}`,
      `neighbour add ${there.ipv4} lladdr ${there.mac} dev ${here.device} nud permanent`,
    ])
  }
  for (const one of ends) waitForCarrier(one)
  return ends
}

/**
 * Returns when the kernel has noticed that an end is up: until then it drops what is sent. On a machine where many
 * links change it looks only once a second.
 */
export function waitForCarrier({ namespace, device }: End): void {
  const deadline = Date.now() + PATIENCE_MS
  while (JSON.parse(ip('-n', namespace, '-j', 'link', 'show', device))[0].operstate !== 'UP') {
    if (Date.now() > deadline) throw new Error(`${device} in ${namespace} does not come up`)
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
  }
}

const PATIENCE_MS = 30_000

/** Resolves when `look` gives true; throws after half a minute. */
export async function until(what: string, look: () => boolean): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS
  while (!look()) {
    if (Date.now() > deadline) throw new Error(`no ${what} within half a minute`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}
