/** What is said to a service manager, heard at a socket as systemd has one. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { KernelSocket, META } from '../../agent/kernel/native.ts'
import { ServiceManager, unixAddress } from '../../agent/kernel/service-manager.ts'
import { until } from '../support/lab.ts'

const AF_UNIX = 1
const SOCK_DGRAM = 2

for (const kind of ['a file', 'an abstract name']) {
  test(`ready, reloading, stopping and the watchdog, to ${kind}`, async t => {
    const folder = mkdtempSync(join(tmpdir(), 'weir-notify-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const path = kind === 'a file' ? join(folder, 'notify') : `@weir-notify-${process.pid}`
    const manager = KernelSocket.open('manager', AF_UNIX, SOCK_DGRAM, 0)
    t.after(() => manager.close())
    manager.bind(unixAddress(path), `bind to ${path}`)
    const heard: string[] = []
    const memory = manager.receive({ slots: 8, slotBytes: 1024 }, count => {
      for (let slot = 0; slot < count; slot++) {
        const start = memory.dataOffset + slot * memory.dataStride
        const bytes = memory.meta[slot * META.words + META.length]!
        heard.push(Buffer.from(memory.memory, start, bytes).toString())
      }
    })
    const environment = {
      NOTIFY_SOCKET: path,
      WATCHDOG_USEC: '100000',
      WATCHDOG_PID: String(process.pid),
      A: 'b',
    }
    const service = new ServiceManager(environment)
    t.after(() => service.close())
    // Nobody else is to speak for this process.
    assert.deepEqual(environment, { A: 'b' })
    service.ready('running with /etc/weir.conf')
    service.reloading()
    await until('a sign of life', () => heard.filter(text => text === 'WATCHDOG=1').length > 1)
    service.stopping()
    await until('the end', () => heard.includes('STOPPING=1'))
    const said = heard.filter(text => text !== 'WATCHDOG=1')
    assert.equal(said[0], 'READY=1\nSTATUS=running with /etc/weir.conf')
    assert.match(said[1]!, /^RELOADING=1\nMONOTONIC_USEC=\d+$/)
    assert.deepEqual(said.slice(2), ['STOPPING=1'])
  })
}

test('without a manager nothing is said, and one that is gone is no error', t => {
  const alone = new ServiceManager({})
  alone.ready('running')
  alone.close()
  const folder = mkdtempSync(join(tmpdir(), 'weir-notify-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'notify')
  const manager = KernelSocket.open('manager', AF_UNIX, SOCK_DGRAM, 0)
  manager.bind(unixAddress(path), `bind to ${path}`)
  const service = new ServiceManager({ NOTIFY_SOCKET: path })
  manager.close()
  service.ready('running')
  service.stopping()
  service.close()
})
