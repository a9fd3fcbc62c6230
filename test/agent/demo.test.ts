import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { test } from 'node:test'
import { checkRouter, namespaces, runDemo } from '../support/demo.ts'

test('the demo shows a router: flows, a queue that fills, delays, drops, counters and the host; and cleans up', async () => {
  const { output, messages } = await runDemo('--seconds', '3')
  assert.match(messages, /the way out of wan0 takes 20 Mb\/s/)
  // While it runs, a line a second where there is no terminal.
  assert.match(output, /^\d s: .* Mb\/s in \d+ flows; .*wan0: queue up to [\d.]+ kB, delay .*; \d+ drops$/m)
  checkRouter(output)
  assert.match(output, /wan0 +up +10000 Mb\/s/)
  assert.match(output, /Linux \d/)
})

test('a demo that is interrupted cleans up, too', async () => {
  const main = join(import.meta.dirname, '../../agent/main.ts')
  const child = spawn(process.execPath, [main, 'demo', '--seconds', '60'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  child.stderr.setEncoding('utf8')
  for await (const chunk of child.stderr as AsyncIterable<string>) if (chunk.includes('traffic for')) break
  assert.equal(namespaces(child.pid!).length, 3)
  child.kill('SIGINT')
  const [status] = (await once(child, 'exit')) as [number]
  assert.equal(status, 130)
  assert.deepEqual(namespaces(child.pid!), [])
})
