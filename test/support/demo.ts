import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { PROGRAM } from './program.ts'

/** The namespaces of the lab that the demo of this process id has built. */
export const namespaces = (pid: number): string[] =>
  execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' })
    .split('\n')
    .map(line => line.split(' ')[0]!)
    .filter(name => name.startsWith(`weir-demo-${pid}-`))

/** Runs `weir demo` to its end; checks that it succeeds and leaves nothing behind. */
export async function runDemo(...options: string[]): Promise<{ output: string; messages: string }> {
  const child = spawn(process.execPath, [PROGRAM, 'demo', ...options])
  const [output, messages, [status]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'exit') as Promise<[number | null]>,
  ])
  assert.equal(status, 0, messages)
  assert.deepEqual(namespaces(child.pid!), [], 'the namespaces are removed')
  return { output, messages }
}

/**
 * What BPF tells of the router: both interfaces of a flow, its queue, and why packets were dropped. An emulated
 * processor decodes more slowly than the agent sends, so that datagrams are missed there: those are problems; and it may see only some of the reasons.
 */
export function checkRouter(output: string, problems: '0' | 'some' = '0'): void {
  const summary =
    /(\d+) datagrams: (\d+) flow samples, \d+ discarded packets, (\d+) counters samples, (\d+) problems/.exec(
      output,
    )
  assert.ok(summary, output)
  const [, datagrams, flows, counters, found] = summary
  if (problems === '0') assert.equal(found, '0', output)
  assert.ok(Number(datagrams) > 0 && Number(flows) > 0 && Number(counters) > 0, output)
  assert.match(output, /lan0 +wan0 +UDP +192\.0\.2\.2 +198\.51\.100\.2:5002/)
  // A full queue delays by milliseconds.
  assert.match(output, /^ +wan0 +\d+ +[\d.]+ k?B +[\d.]+ kB +[\d.]+ [mµ]s +[\d.]+ ms$/m)
  const reasons = [
    /lan0 +\? +port_unreachable +NO_SOCKET +\d/,
    /lan0 +\? +ttl_exceeded +IP_INHDR +\d/,
    /lan0 +\? +net_unreachable +\w+ +\d/,
  ]
  const told = reasons.filter(reason => reason.test(output)).length
  // The emulated one has read the names of the functions that drop packets when the traffic is nearly over.
  assert.ok(told >= (problems === '0' ? reasons.length : 1), output)
}
