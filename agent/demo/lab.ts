// biome-ignore lint/style/noRestrictedImports: the demo builds a lab with ip(8); the agent itself runs no program
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'

/**
 * A lab of network namespaces on this machine: two hosts and the cable between them. Everything in it is removed
 * by close(), whatever happened meanwhile.
 */

export interface LabHost {
  readonly namespace: string
  /** Interface of the cable, its addresses. */
  readonly device: string
  readonly ipv4: string
  readonly ipv6: string
}

/** A program running in the lab, by lines of its standard output. */
export interface LabProgram {
  readonly child: ChildProcess
  /** Resolves with the exit status, or the signal's name. */
  readonly ended: Promise<number | string>
}

export class Lab {
  readonly host: LabHost
  readonly peer: LabHost
  readonly #children = new Set<ChildProcess>()

  /** Builds the lab. Throws with ip's own message when it cannot. */
  constructor(name: string) {
    this.host = { namespace: `${name}-host`, device: 'eth0', ipv4: '192.0.2.1', ipv6: '2001:db8::1' }
    this.peer = { namespace: `${name}-peer`, device: 'eth0', ipv4: '192.0.2.2', ipv6: '2001:db8::2' }
    const { host, peer } = this
    try {
      for (const { namespace } of [host, peer]) ip('netns', 'add', namespace)
      const ends = ['name', host.device, 'netns', host.namespace, 'type', 'veth']
      ip('link', 'add', ...ends, 'peer', 'name', peer.device, 'netns', peer.namespace)
      for (const { namespace, device, ipv4, ipv6 } of [host, peer]) {
        ip('-n', namespace, 'link', 'set', 'lo', 'up')
        ip('-n', namespace, 'link', 'set', device, 'up')
        ip('-n', namespace, 'address', 'add', `${ipv4}/24`, 'dev', device)
        ip('-n', namespace, 'address', 'add', `${ipv6}/64`, 'dev', device, 'nodad')
      }
    } catch (error) {
      this.#removeNamespaces()
      throw error
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

  /** Ends what still runs and removes the namespaces, and the cable with them. */
  close(): void {
    for (const child of this.#children) child.kill('SIGKILL')
    this.#children.clear()
    this.#removeNamespaces()
  }

  #removeNamespaces(): void {
    for (const { namespace } of [this.host, this.peer]) {
      try {
        ip('netns', 'delete', namespace)
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

/** Runs ip(8); its message becomes the error's. */
function ip(...args: string[]): void {
  try {
    execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' })
  } catch (error) {
    const { code, stderr } = error as { code?: string; stderr?: string }
    if (code === 'ENOENT') throw new Error("the program 'ip' is missing: install iproute2")
    throw new Error(`ip ${args.join(' ')}: ${stderr?.trim() || (error as Error).message}`)
  }
}
