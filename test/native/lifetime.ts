/**
 * Takes sockets through everything that can happen to them: closed early, twice, while a send is under way, left to
 * the collector of garbage, and with a worker whose environment ends while they receive. Run by lifetime.test.ts,
 * once as it is and once under AddressSanitizer. Throws at the first thing wrong.
 */
import assert from 'node:assert/strict'
import { readdirSync, readlinkSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { KernelSocket } from '../../agent/kernel/native.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../agent/kernel/netlink-socket.ts'
import { MessageBuilder } from '../../agent/wire/netlink/message.ts'

const AF_NETLINK = 16
const SOCK_RAW = 3
const USERSOCK = 2

setFlagsFromString('--expose-gc')
const gc: () => void = runInNewContext('gc')

const openRaw = () => KernelSocket.open('netlink socket', AF_NETLINK, SOCK_RAW, USERSOCK)
const getLinks = () => new MessageBuilder(18, 0, new Uint8Array(16)).build()
const turn = () => new Promise(resolve => setImmediate(resolve))

/** Open sockets of the whole process. */
function sockets(): number {
  return readdirSync('/proc/self/fd').filter(fd => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:')
    } catch {
      return false
    }
  }).length
}

/** Waits until the process has `count` sockets again, collecting garbage meanwhile. */
async function settle(count: number): Promise<void> {
  for (let i = 0; i < 200 && sockets() !== count; i++) {
    gc()
    await new Promise(resolve => setTimeout(resolve, 5))
  }
  assert.equal(sockets(), count)
}

const steps: Record<string, () => Promise<void> | void> = {
  'opened and closed, twice': () => {
    for (let i = 0; i < 50; i++) {
      const socket = openRaw()
      socket.close()
      socket.close()
    }
  },

  'left to the collector of garbage': () => {
    for (let i = 0; i < 50; i++) openRaw().setOption(1, 8, 10_000, 'set the receive buffer')
  },

  'receiving, not reachable from JavaScript, still served': async () => {
    let batches = 0
    let port = 0
    const listen = () => {
      const socket = openRaw()
      socket.bind(Uint8Array.of(AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 'bind')
      port = new DataView(socket.name().buffer).getUint32(4, true)
      socket.receive({ slots: 4, slotBytes: 1024 }, () => {
        batches++
        socket.close()
      })
    }
    listen()
    for (let i = 0; i < 5; i++) {
      gc()
      await turn()
    }
    const sender = openRaw()
    const address = new Uint8Array(12)
    new DataView(address.buffer).setUint16(0, AF_NETLINK, true)
    new DataView(address.buffer).setUint32(4, port, true)
    sender.connect(address, 'connect')
    assert.equal(sender.sendBatch(new ArrayBuffer(64), Int32Array.of(0, 64), 0, 1), 1)
    while (batches === 0) await turn()
    sender.close()
  },

  'memory outlives the socket': async () => {
    const socket = openRaw()
    const memory = socket.receive({ slots: 64, slotBytes: 65536, controlBytes: 24 }, () => {})
    socket.close()
    await turn()
    gc()
    memory.words.fill(7)
    assert.equal(memory.view.getUint32(memory.memory.byteLength - 4, true), 7)
  },

  'receiving twice is refused': () => {
    const socket = openRaw()
    socket.receive({ slots: 1, slotBytes: 64 }, () => {})
    assert.throws(() => socket.receive({ slots: 1, slotBytes: 64 }, () => {}), { code: 'EALREADY' })
    socket.close()
    assert.throws(() => socket.receive({ slots: 1, slotBytes: 64 }, () => {}), { code: 'EBADF' })
  },

  'sizes out of range are refused': () => {
    const socket = openRaw()
    const wrong = [
      { slots: 0, slotBytes: 64 },
      { slots: 1025, slotBytes: 64 },
      { slots: 1, slotBytes: 60 },
      { slots: 1, slotBytes: (1 << 20) + 8 },
      { slots: 1, slotBytes: 64, headroom: 64 },
      { slots: 1, slotBytes: 64, headroom: -4 },
      { slots: 1, slotBytes: 64, controlBytes: 4 },
      { slots: 1, slotBytes: 64, controlBytes: -8 },
      { slots: 1, slotBytes: 64, batches: 0 },
    ]
    for (const options of wrong) assert.throws(() => socket.receive(options, () => {}), { code: 'EINVAL' })
    socket.close()
  },

  'closed while a send is under way': async () => {
    for (let i = 0; i < 50; i++) {
      const socket = openRaw()
      const sends = Array.from({ length: 8 }, () => socket.sendAsync(new Uint8Array(100), 'send'))
      socket.close()
      // Nobody is at the kernel's end, so each was refused, none met a strange descriptor.
      for (const result of await Promise.allSettled(sends)) {
        assert.equal(result.status === 'rejected' && result.reason.code, 'ECONNREFUSED')
      }
      await assert.rejects(socket.sendAsync(new Uint8Array(100), 'send'), { code: 'EBADF' })
    }
  },

  'closed with requests under way': async () => {
    for (let i = 0; i < 20; i++) {
      const socket = NetlinkSocket.open(NETLINK_ROUTE)
      const dumps = [socket.dump(getLinks()), socket.dump(getLinks())]
      if (i % 2 === 0) await turn()
      socket.close()
      await Promise.allSettled(dumps)
    }
  },

  'an exception in the callback is an uncaught one, and receiving goes on': async () => {
    const thrown: unknown[] = []
    const keep = (error: unknown) => thrown.push(error)
    process.on('uncaughtException', keep)
    let calls = 0
    const socket = NetlinkSocket.open(NETLINK_ROUTE, {
      onNotification: () => {},
      onOverrun: () => {},
    })
    const raw = openRaw()
    raw.bind(Uint8Array.of(AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0), 'bind')
    raw.receive({ slots: 1, slotBytes: 256 }, () => {
      calls++
      throw new Error('from the callback')
    })
    const sender = openRaw()
    sender.connect(Uint8Array.of(AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0), 'connect')
    for (let i = 0; i < 3; i++) sender.sendBatch(new ArrayBuffer(64), Int32Array.of(0, 64), 0, 1)
    while (calls < 3) await turn()
    assert.equal((await socket.dump(getLinks())).length > 0, true)
    for (const each of [socket, raw, sender]) each.close()
    process.off('uncaughtException', keep)
    assert.equal(thrown.length, 3)
    assert.ok(thrown.every(error => (error as Error).message === 'from the callback'))
  },

  'workers that end in every way, one after another and at once': async () => {
    const ends = ['return', 'exit', 'terminate', 'throw']
    const run = async (how: string) => {
      const worker = new Worker(new URL(import.meta.url), { workerData: how, stderr: true })
      worker.on('error', error => assert.equal(how, 'throw', error as Error))
      const exited = new Promise(resolve => worker.once('exit', resolve))
      await new Promise(resolve => worker.once('message', resolve))
      if (how === 'terminate') await worker.terminate()
      await exited
    }
    for (const how of ends) await run(how)
    await Promise.all([...ends, ...ends].map(run))
    const socket = NetlinkSocket.open(NETLINK_ROUTE)
    assert.ok((await socket.dump(getLinks())).length > 0)
    socket.close()
  },
}

/** In a worker: sockets that receive, requests under way and a send under way; then the end. */
async function inWorker(how: string): Promise<void> {
  const socket = NetlinkSocket.open(NETLINK_ROUTE, { groups: [1] })
  await socket.dump(getLinks())
  const raw = openRaw()
  raw.receive({ slots: 64, slotBytes: 65536 }, () => {})
  openRaw()
  void socket.dump(getLinks()).catch(() => {})
  // This one receives nothing until its questions have been sent.
  const asking = NetlinkSocket.open(NETLINK_ROUTE)
  void asking.requestEach([getLinks(), getLinks()]).catch(() => {})
  void raw.sendAsync(new Uint8Array(100), 'send').catch(() => {})
  parentPort!.postMessage('ready')
  if (how === 'exit') process.exit(0)
  if (how === 'throw') throw new Error('the worker fails')
  if (how === 'return') {
    socket.close()
    asking.close()
    raw.close()
  }
}

if (isMainThread) {
  for (const [name, step] of Object.entries(steps)) {
    const before = sockets()
    await step()
    await settle(before)
    console.log(name)
  }
  console.log('all done')
} else {
  await inWorker(workerData as string)
}
