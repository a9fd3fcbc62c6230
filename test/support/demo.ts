import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'

/** The namespaces of the lab that the demo of this process id has built. */
export const namespaces = (pid: number): string[] =>
  execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' })
    .split('\n')
    .map(line => line.split(' ')[0]!)
    .filter(name => name.startsWith(`weir-demo-${pid}-`))

/** Runs `weir demo` to its end; checks that it succeeds and leaves nothing behind. */
export async function runDemo(seconds: number): Promise<{ output: string; messages: string }> {
  const main = join(import.meta.dirname, '../../agent/main.ts')
  const child = spawn(process.execPath, [main, 'demo', '--seconds', String(seconds)])
  const [output, messages, [status]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'exit') as Promise<[number | null]>,
  ])
  assert.equal(status, 0, messages)
  assert.deepEqual(namespaces(child.pid!), [], 'the namespaces are removed')
  return { output, messages }
}
