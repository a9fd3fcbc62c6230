// biome-ignore lint/style/noRestrictedImports: the demo builds a lab with ip(8) and tc(8); the agent itself runs no program
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'

/**
 * A lab of network namespaces on this machine: two hosts and a router between them. Everything in it is removed by
 * close(), whatever happened meanwhile.
 *
 *     left eth0 ── lan0 router wan0 ── eth0 right
 */

/** One end of a cable. */
export interface LabPort {
  readonly device: string
  readonly ipv4: string
  readonly ipv6: string
}

export interface LabHost {
  readonly namespace: string
}

/** A program running in the lab, by lines of its standard output. */
export interface LabProgram {
  readonly child: ChildProcess
  /** Resolves with the exit status, or the signal's name. */
  readonly ended: Promise<number | string>
}

const FORWARDING = ['/proc/sys/net/ipv4/ip_forward', '/proc/sys/net/ipv6/conf/all/forwarding']

export class Lab {
  readonly left: LabHost & LabPort
  readonly router: LabHost & { readonly lan: LabPort; readonly wan: LabPort }
  readonly right: LabHost & LabPort
  readonly #children = new Set<ChildProcess>()

  /** Builds the lab. Throws with ip's own message when it cannot. */
  constructor(name: string) {
    const [left, router, right] = ['left', 'router', 'right'].map(host => `${name}-${host}`)
    this.left = { namespace: left!, device: 'eth0', ipv4: '192.0.2.2', ipv6: '2001:db8:1::2' }
    this.right = { namespace: right!, device: 'eth0', ipv4: '198.51.100.2', ipv6: '2001:db8:2::2' }
    this.router = {
      namespace: router!,
      lan: { device: 'lan0', ipv4: '192.0.2.1', ipv6: '2001:db8:1::1' },
      wan: { device: 'wan0', ipv4: '198.51.100.1', ipv6: '2001:db8:2::1' },
    }
    try {
      ip(this.#namespaces.map(namespace => `netns add ${namespace}`))
      this.#plug(this.left, this.router.lan)
      this.#plug(this.right, this.router.wan)
      execFileSync('ip', ['netns', 'exec', router!, 'tee', ...FORWARDING], {
        input: '1',
        stdio: ['pipe', 'ignore', 'pipe'],
      })
    } catch (error) {
      this.#removeNamespaces()
      throw error
    }
  }

  /**
   * Makes the router's way to the right host narrow, with a queue in front of it. Gives what the kernel has against it
   * (it may not have tbf), or undefined.
   */
  narrow(bitsPerSecond: number, queueBytes: number): string | undefined {
    const { namespace, wan } = this.router
    const shape = ['tbf', 'rate', `${bitsPerSecond}bit`, 'burst', '5000', 'limit', String(queueBytes)]
    try {
      execFileSync('tc', ['-n', namespace, 'qdisc', 'add', 'dev', wan.device, 'root', ...shape], {
        stdio: ['ignore', 'ignore', 'pipe'],
        encoding: 'utf8',
      })
      return undefined
    } catch (error) {
      return messageOf(error)
    }
  }

  /** Runs a command in a host of the lab. `onLine` gets its standard output; its messages go to ours. */
  run(host: LabHost, command: readonly string[], onLine?: (line: string) => void): LabProgram {
    const child = spawn('ip', ['netns', 'exec', host.namespace, ...command], {
      stdio: ['ignore', onLine === undefined ? 'ignore' : 'pipe', 'inherit'],
    })
    this.#children.add(child)
    const ended = new Promise<number | string>(resolve => {
      child.on('error', error => resolve(error.message))
      child.on('close', (code, signal) => {
        this.#children.delete(child)
        resolve(code ?? signal ?? 1)
      })
    })
    if (onLine !== undefined) splitLines(child, onLine)
    return { child, ended }
  }

  /** Ends what still runs and removes the namespaces, and the cables with them. */
  close(): void {
    for (const child of this.#children) child.kill('SIGKILL')
    this.#children.clear()
    this.#removeNamespaces()
  }

  get #namespaces(): string[] {
    return [this.left, this.router, this.right].map(({ namespace }) => namespace)
  }

  /** Lays a cable from a host to a port of the router, which is the host's way to everywhere. */
  #plug(host: LabHost & LabPort, port: LabPort): void {
    const { namespace: router } = this.router
    ip([
      `link add name ${host.device} netns ${host.namespace} type veth peer name ${port.device} netns ${router}`,
    ])
    for (const [namespace, { device, ipv4, ipv6 }] of [
      [host.namespace, host],
      [router, port],
    ] as const) {
      const commands = [
        'link set lo up',
        `link set ${device} up`,
        `address add ${ipv4}/24 dev ${device}`,
        `address add ${ipv6}/64 dev ${device} nodad`,
      ]
      ip(commands, namespace)
    }
    ip([`route add default via ${port.ipv4}`, `route add default via ${port.ipv6}`], host.namespace)
  }

  #removeNamespaces(): void {
    for (const namespace of this.#namespaces) {
      try {
        ip([`netns delete ${namespace}`])
      } catch {
        // Not made yet, or gone already: either way it is not there, which is what is wanted.
      }
    }
  }
}

function splitLines(child: ChildProcess, onLine: (line: string) => void): void {
  let rest = ''
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop()!
    for (const line of lines) onLine(line)
  })
}

/** Runs commands of ip(8), in a namespace if one is given; its message becomes the error's. */
function ip(commands: readonly string[], namespace?: string): void {
  const place = namespace === undefined ? [] : ['-n', namespace]
  try {
    execFileSync('ip', [...place, '-batch', '-'], {
      input: commands.join('\n'),
      stdio: ['pipe', 'ignore', 'pipe'],
      encoding: 'utf8',
    })
  } catch (error) {
    throw new Error(`${commands.join('; ')}: ${messageOf(error)}`)
  }
}

/** What a program said before it failed. */
function messageOf(error: unknown): string {
  const { code, path, stderr, message } = error as Error & { code?: string; path?: string; stderr?: string }
  if (code === 'ENOENT') return `the program '${path}' is missing: install iproute2`
  return stderr?.trim() || message
}
