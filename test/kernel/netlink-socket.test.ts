import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { describe, type TestContext, test } from 'node:test'
import { resolveFamily } from '../../agent/kernel/genl.ts'
import { KernelSocket } from '../../agent/kernel/native.ts'
import {
  NETLINK_GENERIC,
  NETLINK_ROUTE,
  NetlinkError,
  NetlinkSocket,
  type NetlinkSocketOptions,
} from '../../agent/kernel/netlink-socket.ts'
import { listAttributes, NetlinkFormatError, parseAttributes } from '../../agent/wire/netlink/attributes.ts'
import { GENL_GROUP_NOTIFY } from '../../agent/wire/netlink/genl-ctrl.ts'
import { FLAG, type Message, MessageBuilder } from '../../agent/wire/netlink/message.ts'
import { ip, ipBatch, makeNamespace, until } from './namespaces.ts'

const RTM_NEWLINK = 16
const RTM_GETLINK = 18
const RTM_NEWQDISC = 36
const RTNLGRP_LINK = 1
const IFLA_IFNAME = 3
const IFLA_LINKINFO = 18
const IFLA_INFO_KIND = 1
const IFINFOMSG = 16
const USERSOCK = 2
const SOCK_RAW = 3
const AF_NETLINK = 16

function open(t: TestContext, protocol: number, options: NetlinkSocketOptions = {}): NetlinkSocket {
  const socket = NetlinkSocket.open(protocol, options)
  t.after(() => socket.close())
  return socket
}

const getLinks = () => new MessageBuilder(RTM_GETLINK, 0, new Uint8Array(IFINFOMSG)).build()

const newBridge = (name: string) =>
  new MessageBuilder(RTM_NEWLINK, FLAG.create | FLAG.exclusive, new Uint8Array(IFINFOMSG))
    .text(IFLA_IFNAME, name)
    .nest(IFLA_LINKINFO, info => info.text(IFLA_INFO_KIND, 'bridge'))
    .build()

function linkName({ view }: Message): string | undefined {
  return parseAttributes(view, 16 + IFINFOMSG, view.byteLength).text(IFLA_IFNAME)
}

/** So many bridges, of which a dump takes several messages. */
function addBridges(namespace: string, count: number): void {
  ipBatch(
    namespace,
    Array.from({ length: count }, (_, i) => `link add br${i} type bridge`),
  )
}

describe('requests', () => {
  test('an answer, an acknowledgement and a refusal with the words of the kernel', async t => {
    const socket = open(t, NETLINK_ROUTE, { namespace: makeNamespace(t) })
    const one = new MessageBuilder(RTM_GETLINK, 0, new Uint8Array(IFINFOMSG)).text(IFLA_IFNAME, 'lo').build()
    assert.equal(linkName((await socket.request(one))!), 'lo')
    assert.equal(await socket.request(newBridge('br0')), undefined)
    await assert.rejects(socket.request(newBridge('br0'), 'add br0'), {
      name: 'NetlinkError',
      code: 'EEXIST',
      errno: 17,
      operation: 'add br0',
      message: 'add br0: EEXIST (file already exists)',
    })
  })

  test('several sent as one: to each its own answer or refusal, in their order', async t => {
    const namespace = makeNamespace(t)
    addBridges(namespace, 80)
    const socket = open(t, NETLINK_ROUTE, { namespace })
    const asked = ['lo', 'nobody', ...Array.from({ length: 80 }, (_, i) => `br${i}`), 'lo']
    const link = (name: string) =>
      new MessageBuilder(RTM_GETLINK, 0, new Uint8Array(IFINFOMSG)).text(IFLA_IFNAME, name).build()
    assert.deepEqual(await socket.requestEach([]), [])
    for (let round = 0; round < 3; round++) {
      const answers = await socket.requestEach(asked.slice(0, 42).map(link), 'ask for links')
      const names = answers.map(answer =>
        answer instanceof NetlinkError ? answer.message : linkName(answer),
      )
      const nobody = 'ask for links: ENODEV (no such device)'
      assert.deepEqual(names, ['lo', nobody, ...asked.slice(2, 42)])
    }
    // One more behind them, and several that end with one that the kernel does not answer.
    assert.equal(linkName((await socket.request(link('lo')))!), 'lo')
    const noop = new MessageBuilder(1, 0).build()
    const hasty = open(t, NETLINK_ROUTE, { namespace, timeoutMs: 200 })
    const silent = hasty.requestEach([link('lo'), noop], 'ask in vain')
    await assert.rejects(silent, { code: 'ETIMEDOUT', operation: 'ask in vain' })
    assert.equal(linkName((await socket.request(link('br1')))!), 'br1')
  })

  test('answers and entries that are read where they were received', async t => {
    const namespace = makeNamespace(t)
    addBridges(namespace, 100)
    const socket = open(t, NETLINK_ROUTE, { namespace, slots: 2, batches: 1 })
    const asked = ['lo', 'nobody', 'br5', ...Array.from({ length: 40 }, (_, i) => `br${i}`)]
    const link = (name: string) =>
      new MessageBuilder(RTM_GETLINK, 0, new Uint8Array(IFINFOMSG)).text(IFLA_IFNAME, name).build()
    const read = (view: DataView, at: number, end: number) => {
      const name = linkName({ type: 0, flags: 0, view: new DataView(view.buffer, at, end - at) })
      if (name === 'br5') throw new NetlinkFormatError('missing', 16, 'not to my liking')
      return name
    }
    const questions = asked.map(link).flatMap(bytes => [...bytes, ...new Uint8Array(-bytes.length & 3)])
    const answers = await socket.requestEachInPlace(
      Uint8Array.from(questions),
      asked.length,
      read,
      'ask for links',
    )
    const unread = 'ask for links: EBADMSG: not to my liking at byte offset 16'
    assert.deepEqual(
      answers.map(answer => (answer instanceof NetlinkError ? answer.message : answer)),
      asked.map(name =>
        name === 'nobody' ? 'ask for links: ENODEV (no such device)' : name === 'br5' ? unread : name,
      ),
    )
    // A dump of many messages, of which those that come by multicast meanwhile are no part.
    const all = new MessageBuilder(RTM_GETLINK, 0, new Uint8Array(IFINFOMSG)).build()
    const names = await socket.dumpInPlace(all, linkName, 'list links')
    assert.deepEqual(new Set(names), new Set(['lo', ...Array.from({ length: 100 }, (_, i) => `br${i}`)]))
    assert.equal(names.length, 101)
    const fail = () => {
      throw new NetlinkFormatError('missing', 16, 'not to my liking')
    }
    await assert.rejects(socket.dumpInPlace(all, fail, 'list links'), { code: 'EBADMSG' })
    // What was left of that dump is nobody's; messages that are kept are copies, not windows.
    const kept = await socket.dump(all)
    await socket.dumpInPlace(all, linkName, 'list links')
    assert.deepEqual(new Set(kept.map(linkName)), new Set(names))
  })

  test('closed while questions are on their way', async () => {
    const lo = new MessageBuilder(RTM_GETLINK, 0, new Uint8Array(IFINFOMSG)).text(IFLA_IFNAME, 'lo').build()
    for (let i = 0; i < 20; i++) {
      const socket = NetlinkSocket.open(NETLINK_ROUTE)
      const questions = socket.requestEach([lo, lo, lo], 'ask')
      // At once, and when they have been sent perhaps.
      if (i % 2 === 1) await new Promise(resolve => setImmediate(resolve))
      socket.close()
      socket.close()
      const end = await questions.then(
        answers => answers.length,
        (error: NetlinkError) => error.code,
      )
      assert.ok(end === 'ECANCELED' || (i % 2 === 1 && end === 3), `${end}`)
    }
  })

  test('more answers than the receive buffer holds: an error, and then service as before', async t => {
    const namespace = makeNamespace(t)
    const socket = open(t, NETLINK_ROUTE, { namespace, timeoutMs: 5000 })
    const lo = new MessageBuilder(RTM_GETLINK, 0, new Uint8Array(IFINFOMSG)).text(IFLA_IFNAME, 'lo').build()
    await assert.rejects(socket.requestEach(new Array(2000).fill(lo), 'ask for too much'), {
      code: 'ENOBUFS',
    })
    // The kernel delivers nothing until the buffer has been emptied, which may take longer than the next question.
    const ask = () => socket.request(lo).catch(() => undefined)
    let answer = await ask()
    for (let tries = 0; answer === undefined && tries < 10; tries++) answer = await ask()
    assert.equal(linkName(answer!), 'lo')
  })

  test('the text and the offset of the extended acknowledgement', async t => {
    const socket = open(t, NETLINK_ROUTE, { namespace: makeNamespace(t) })
    const long = new MessageBuilder(RTM_NEWLINK, FLAG.create, new Uint8Array(IFINFOMSG))
      .u32(13, 1)
      .text(IFLA_IFNAME, 'a-name-of-more-than-fifteen-letters')
      .build()
    await assert.rejects(socket.request(long, 'add link'), (error: NetlinkError) => {
      assert.equal(error.code, 'ERANGE')
      assert.equal(error.kernelMessage, 'Attribute failed policy validation')
      // Behind nlmsghdr, ifinfomsg and the first attribute.
      assert.equal(error.offset, 40)
      assert.match(error.message, /^add link: ERANGE .*: Attribute failed .*, byte offset 40 of the request$/)
      return true
    })
    const lo = new Uint8Array(20)
    new DataView(lo.buffer).setInt32(4, 1, true)
    new DataView(lo.buffer).setUint32(12, 0xffff_ffff, true)
    const unknown = new MessageBuilder(RTM_NEWQDISC, FLAG.create, lo).text(1, 'no_such_qdisc').build()
    await assert.rejects(socket.request(unknown, 'add qdisc'), {
      code: 'ENOENT',
      kernelMessage: 'Specified qdisc kind is unknown',
    })
  })

  test('many at once are answered each with its own', async t => {
    const namespace = makeNamespace(t)
    addBridges(namespace, 20)
    const socket = open(t, NETLINK_ROUTE, { namespace })
    const names = Array.from({ length: 20 }, (_, i) => `br${i}`)
    const ask = (name: string) =>
      socket.request(
        new MessageBuilder(RTM_GETLINK, 0, new Uint8Array(IFINFOMSG)).text(IFLA_IFNAME, name).build(),
      )
    const [all, missing, ...answers] = await Promise.all([
      socket.dump(getLinks()),
      ask('nothing').catch((error: NetlinkError) => error.code),
      ...names.map(ask),
    ])
    assert.equal(all.length, 21)
    assert.equal(missing, 'ENODEV')
    assert.deepEqual(
      answers.map(answer => linkName(answer!)),
      names,
    )
  })

  test('a message that the kernel does not answer runs out of time, and the next one is served', async t => {
    const socket = open(t, NETLINK_ROUTE, { timeoutMs: 500 })
    // netlink_rcv_skb() ignores a message whose length is below that of its header.
    const ignored = newBridge('br0')
    new DataView(ignored.buffer).setUint32(0, 8, true)
    await assert.rejects(socket.request(ignored, 'say nothing'), {
      code: 'ETIMEDOUT',
      message: /^say nothing: ETIMEDOUT .*: no answer within 500 ms$/,
    })
    assert.ok((await socket.dump(getLinks())).length > 0)
  })

  test('a dump behind one that ran out of time is not refused as busy', async t => {
    const namespace = makeNamespace(t)
    addBridges(namespace, 100)
    const socket = open(t, NETLINK_ROUTE, { namespace, timeoutMs: 300 })
    const late = socket.dump(getLinks())
    // Its answer is there, but the timer comes first.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 400)
    await assert.rejects(late, { code: 'ETIMEDOUT' })
    assert.equal((await socket.dump(getLinks())).length, 101)
  })

  test('a send that the kernel refuses is the error of the request', async t => {
    // Nobody listens at the kernel's end of this protocol.
    const socket = open(t, USERSOCK)
    await assert.rejects(socket.request(getLinks(), 'ask nobody'), {
      code: 'ECONNREFUSED',
      operation: 'ask nobody',
    })
  })

  test('without the capability: EPERM, and the buffer that was granted', () => {
    const script = `
      import { NetlinkSocket } from '${import.meta.dirname}/../../agent/kernel/netlink-socket.ts'
      import { MessageBuilder } from '${import.meta.dirname}/../../agent/wire/netlink/message.ts'
      const socket = NetlinkSocket.open(0, { receiveBytes: 64 << 20 })
      const request = new MessageBuilder(${RTM_NEWLINK}, 0, new Uint8Array(16)).text(3, 'weir-n').build()
      const error = await socket.request(request, 'add link').catch(error => error)
      console.log(JSON.stringify({ code: error.code, message: error.message, buffer: socket.receiveBuffer }))
      socket.close()`
    const node = [process.execPath, '--input-type=module-typescript', '-e', script]
    const run = spawnSync('setpriv', ['--bounding-set=-net_admin', '--inh-caps=-net_admin', ...node], {
      encoding: 'utf8',
    })
    assert.equal(run.status, 0, run.stderr)
    const { code, message, buffer } = JSON.parse(run.stdout)
    assert.equal(code, 'EPERM')
    assert.equal(message, 'add link: EPERM (operation not permitted)')
    assert.equal(buffer.forced, false)
    assert.ok(buffer.granted < buffer.asked)
    assert.match(buffer.warning, /^receive buffer of \d+ bytes instead of 67108864: .*net\.core\.rmem_max$/)
  })

  test('with the capability the buffer is as large as asked', t => {
    const { receiveBuffer } = open(t, NETLINK_ROUTE, { receiveBytes: 8 << 20 })
    assert.deepEqual(receiveBuffer, { asked: 8 << 20, granted: 8 << 20, forced: true, warning: undefined })
  })
})

describe('dumps', () => {
  test('of several messages', async t => {
    const namespace = makeNamespace(t)
    addBridges(namespace, 100)
    const socket = open(t, NETLINK_ROUTE, { namespace })
    const names = (await socket.dump(getLinks())).map(linkName)
    assert.deepEqual(
      names.slice(1),
      Array.from({ length: 100 }, (_, i) => `br${i}`),
    )
  })

  test('a table that changes under the dump is read again', async t => {
    const namespace = makeNamespace(t)
    addBridges(namespace, 100)
    let changed = false
    // One datagram at a time: the kernel makes the second part of the dump when the first one is taken. The
    // notification is in front of it, and its reader waits until the first part has been made.
    const socket = open(t, NETLINK_ROUTE, {
      namespace,
      groups: [RTNLGRP_LINK],
      slots: 1,
      onNotification: () => {
        if (changed) return
        changed = true
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100)
        ip('-n', namespace, 'link', 'del', 'br0')
      },
    })
    ip('-n', namespace, 'link', 'set', 'lo', 'down')
    const names = (await socket.dump(getLinks())).map(linkName)
    assert.ok(changed)
    assert.deepEqual(
      names.slice(1),
      Array.from({ length: 99 }, (_, i) => `br${i + 1}`),
    )
  })

  test('a header that the kernel does not know is refused under strict checking', async t => {
    const socket = open(t, NETLINK_ROUTE, { strictChecking: true })
    const header = new Uint8Array(IFINFOMSG).fill(1)
    await assert.rejects(socket.dump(new MessageBuilder(RTM_GETLINK, 0, header).build(), 'dump links'), {
      code: 'EINVAL',
      kernelMessage: 'Invalid values in header for link dump request',
    })
  })
})

describe('notifications', () => {
  test('the one of our own request is not taken for its answer', async t => {
    const namespace = makeNamespace(t)
    const seen: (string | undefined)[] = []
    const socket = open(t, NETLINK_ROUTE, {
      namespace,
      groups: [RTNLGRP_LINK],
      onNotification: message => seen.push(linkName(message)),
    })
    assert.equal(await socket.request(newBridge('br7')), undefined)
    await until('notification', () => seen.includes('br7'))
    socket.leave(RTNLGRP_LINK, 'link')
    await socket.request(newBridge('br8'))
    assert.equal(seen.includes('br8'), false)
  })

  test('a group that does not exist', t => {
    assert.throws(() => open(t, NETLINK_ROUTE).join(5000, 'nothing'), {
      code: 'EINVAL',
      message: 'join netlink group nothing: EINVAL (invalid argument)',
    })
  })

  test('families: known, unknown, and the group of nlctrl', async t => {
    const socket = open(t, NETLINK_GENERIC, { groups: [GENL_GROUP_NOTIFY] })
    const nlctrl = await resolveFamily(socket, 'nlctrl')
    assert.equal(nlctrl?.id, 16)
    assert.equal(nlctrl.groups.get('notify'), GENL_GROUP_NOTIFY)
    assert.ok(((await resolveFamily(socket, 'ethtool'))?.id ?? 0) > 16)
    assert.equal(await resolveFamily(socket, 'no_such_family'), undefined)
  })
})

describe('loss', () => {
  /** Sends multicasts from user space to a group; the kernel then finds nobody at port 0, which is no matter. */
  function multicaster(t: TestContext) {
    const sender = KernelSocket.open('multicaster', AF_NETLINK, SOCK_RAW, USERSOCK)
    t.after(() => sender.close())
    sender.connect(Uint8Array.of(AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0), 'connect to group 1')
    const memory = new ArrayBuffer(256)
    new DataView(memory).setUint32(0, 256, true)
    const spans = Int32Array.of(0, 256)
    return (count: number) => {
      for (let i = 0; i < count; i++) sender.sendBatch(memory, spans, 0, 1)
    }
  }

  test('with NO_ENOBUFS each message is received or in drops()', async t => {
    const send = multicaster(t)
    const socket = open(t, USERSOCK, {
      groups: [1],
      noEnobufs: true,
      receiveBytes: 20_000,
      onDatagram: () => {},
    })
    send(1000)
    // What others than the kernel send is taken from the queue and goes nowhere.
    await until('messages', () => socket.foreign > 0)
    await until('all messages', () => socket.foreign + socket.drops() === 1000)
    assert.ok(socket.drops() > 0)
    assert.equal(socket.overruns, 0)
    const { foreign } = socket
    send(3)
    await until('three more', () => socket.foreign === foreign + 3)
  })

  test('without it the overrun is told once, and after that messages come again', async t => {
    const send = multicaster(t)
    let told = 0
    const socket = open(t, USERSOCK, { groups: [1], receiveBytes: 20_000, onOverrun: () => told++ })
    send(1000)
    await until('overrun', () => told > 0)
    await until('messages', () => socket.foreign > 0)
    const { foreign } = socket
    send(3)
    await until('three more', () => socket.foreign === foreign + 3)
    assert.equal(told, 1)
    assert.equal(socket.overruns, 1)
  })

  test('what is longer than a slot is counted as cut', async t => {
    const namespace = makeNamespace(t)
    addBridges(namespace, 20)
    const socket = open(t, NETLINK_ROUTE, { namespace, slotBytes: 64 })
    await assert.rejects(socket.dump(getLinks(), 'dump links'), {
      code: 'EMSGSIZE',
      message: /dump links: .*: the answer is longer than the buffer/,
    })
    assert.ok(socket.truncated > 0)
  })
})

describe('sockets that only listen', () => {
  test('get the bytes where they were received', async t => {
    const namespace = makeNamespace(t)
    const names: string[] = []
    let batches = 0
    open(t, NETLINK_ROUTE, {
      namespace,
      groups: [RTNLGRP_LINK],
      onDatagram: (view, words, start, end) => {
        assert.equal(start % 4, 0)
        assert.equal(words[start >> 2], end - start)
        for (const attribute of listAttributes(view, start + 16 + IFINFOMSG, end)) {
          if (attribute.type !== IFLA_IFNAME) continue
          names.push(
            Buffer.from(
              view.buffer as ArrayBuffer,
              attribute.start,
              attribute.end - attribute.start - 1,
            ).toString(),
          )
        }
      },
      onBatchEnd: () => batches++,
    })
    addBridges(namespace, 3)
    await until('three links', () => new Set(names).size === 3)
    assert.deepEqual([...new Set(names)], ['br0', 'br1', 'br2'])
    assert.ok(batches > 0)
  })

  test('take requests that are acknowledged', async t => {
    let notified = 0
    const onDatagram = () => notified++
    const socket = open(t, NETLINK_ROUTE, { namespace: makeNamespace(t), groups: [RTNLGRP_LINK], onDatagram })
    assert.equal(await socket.request(newBridge('br0')), undefined)
    await assert.rejects(socket.request(newBridge('br0'), 'make br0'), /make br0: EEXIST/)
    await until('the notification', () => notified > 0)
  })

  test('take no dumps', async t => {
    const socket = open(t, NETLINK_ROUTE, { onDatagram: () => {} })
    await assert.rejects(
      socket.dump(getLinks(), 'dump links'),
      /dump links: this netlink socket takes no dumps/,
    )
  })
})

describe('closing', () => {
  test('fails what is under way and what comes later, and may be done twice', async () => {
    const socket = NetlinkSocket.open(NETLINK_ROUTE)
    const pending = [socket.dump(getLinks(), 'first'), socket.dump(getLinks(), 'second')]
    socket.close()
    socket.close()
    for (const promise of [...pending, socket.dump(getLinks())]) {
      await assert.rejects(
        promise,
        (error: Error) => error instanceof NetlinkError && error.code === 'ECANCELED',
      )
    }
    assert.throws(() => socket.join(1), { code: 'EBADF' })
    assert.throws(() => socket.drops(), { code: 'EBADF' })
  })

  test('inside a notification ends the batch', async t => {
    const namespace = makeNamespace(t)
    let seen = 0
    const socket = open(t, NETLINK_ROUTE, {
      namespace,
      groups: [RTNLGRP_LINK],
      onNotification: () => {
        seen++
        socket.close()
      },
    })
    addBridges(namespace, 5)
    await until('notification', () => seen > 0)
    await new Promise(resolve => setTimeout(resolve, 20))
    assert.equal(seen, 1)
  })
})

describe('opening', () => {
  const wrong: [string, () => unknown, RegExp][] = [
    [
      'a namespace that does not exist',
      () => NetlinkSocket.open(NETLINK_ROUTE, { namespace: 'weir-n-nothing' }),
      /^open network namespace \/var\/run\/netns\/weir-n-nothing: ENOENT/,
    ],
    [
      'a path that is no namespace',
      () => NetlinkSocket.open(NETLINK_ROUTE, { namespace: '/proc/self/status' }),
      /^enter network namespace \/proc\/self\/status: EINVAL/,
    ],
    [
      'a namespace of another kind',
      () => NetlinkSocket.open(NETLINK_ROUTE, { namespace: '/proc/self/ns/uts' }),
      /^enter network namespace \/proc\/self\/ns\/uts: EINVAL/,
    ],
    ['a protocol that does not exist', () => NetlinkSocket.open(31), /^open netlink socket: EPROTONOSUPPORT/],
  ]
  for (const [name, work, message] of wrong) {
    test(`${name} is an error that says so`, () => assert.throws(work, { name: 'SystemError', message }))
  }
})
