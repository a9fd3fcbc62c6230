import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { Listener } from '../../agent/health/listener.ts'
import { createLogger } from '../../agent/health/log.ts'
import { until } from '../support/lab.ts'

test('a server whose port is taken listens when the port is free: when asked, and by itself', async t => {
  const other = createServer()
  const take = () => new Promise<void>(resolve => void other.listen({ host: '127.0.0.1', port }, resolve))
  const free = () => new Promise(resolve => other.close(resolve))
  let port = 0
  await take()
  port = (other.address() as AddressInfo).port
  const listener = new Listener('web', createLogger('silent'))
  t.after(() => {
    listener.close()
    other.close()
  })
  const open = () =>
    listener.open({
      address: { host: '127.0.0.1', port },
      answer: (_, response) => response.end('here'),
      told: 'here',
    })
  const hears = async () => (await fetch(`http://127.0.0.1:${port}/`)).text()

  await open()
  const problem = `listen at 127.0.0.1 port ${port}: listen EADDRINUSE: address already in use 127.0.0.1:${port}`
  assert.deepEqual(listener.unheard(), [{ name: 'web', problem }])
  await free()
  await listener.retry()
  assert.deepEqual([listener.unheard(), await hears()], [[], 'here'])
  // It is not in its own way.
  await Promise.all([listener.retry(), listener.retry()])
  await open()
  assert.deepEqual(listener.unheard(), [])

  listener.close()
  await take()
  await open()
  assert.equal(listener.unheard().length, 1)
  await free()
  await until('that it listens', () => listener.unheard().length === 0)
  assert.equal(await hears(), 'here')

  // What is closed while it is tried does not listen afterwards.
  listener.close()
  const opened = open()
  listener.close()
  await opened
  await assert.rejects(hears())
})
