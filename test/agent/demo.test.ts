import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { test } from 'node:test'
import { namespaces, runDemo } from '../support/demo.ts'

test('the demo shows flows, interface counters and the host, and cleans up', async () => {
  const { output } = await runDemo(2)
  const [, datagrams, flows, counters] =
    /(\d+) datagrams: (\d+) flow samples, (\d+) counters samples, 0 problems/.exec(output)!
  assert.ok(Number(datagrams) > 0 && Number(flows) > 0 && Number(counters) > 0, output)
  assert.match(output, /eth0 +internal +UDP +192\.0\.2\.2 +192\.0\.2\.1:5002/)
  assert.match(output, /eth0 +up +10000 Mb\/s/)
  assert.match(output, /Linux \d/)
})

test('a demo that is interrupted cleans up, too', async () => {
  const main = join(import.meta.dirname, '../../agent/main.ts')
  const child = spawn(process.execPath, [main, 'demo', '--seconds', '60'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  child.stderr.setEncoding('utf8')
  for await (const chunk of child.stderr as AsyncIterable<string>) if (chunk.includes('traffic for')) break
  assert.equal(namespaces(child.pid!).length, 2)
  child.kill('SIGINT')
  const [status] = (await once(child, 'exit')) as [number]
  assert.equal(status, 130)
  assert.deepEqual(namespaces(child.pid!), [])
})
