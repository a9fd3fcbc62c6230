import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type AskedSocket, Questions } from '../../agent/counters/questions.ts'
import { NetlinkError } from '../../agent/kernel/netlink-socket.ts'
import type { Message } from '../../agent/wire/netlink/message.ts'

const ENODEV = 19
const EOPNOTSUPP = 95
const EIO = 5
const EBADMSG = 74
const ENOBUFS = 105

/** A socket that answers each message with its first byte, or refuses it with the errno that the byte is above 100. */
function socket(fails?: Error) {
  const sends: number[] = []
  const asked: AskedSocket = {
    async requestEach(messages, operation = '') {
      sends.push(messages.length)
      if (fails !== undefined) throw fails
      return messages.map(([first]) => {
        if (first! > 100) return new NetlinkError(first! - 100, operation)
        return { type: first!, flags: 0, view: new DataView(new ArrayBuffer(0)) } satisfies Message
      })
    },
    requestEachInPlace: async () => [],
    dump: async () => [],
    close: () => {},
  }
  return { asked, sends }
}

test('what is asked in one turn is sent together, 64 at most, and each has its own answer', async () => {
  const { asked, sends } = socket()
  const questions = new Questions(asked, 'ask')
  const numbers = Array.from({ length: 100 }, (_, i) => i)
  const answers = await Promise.all(numbers.map(n => questions.ask(Uint8Array.of(n))))
  assert.deepEqual(
    answers.map(answer => answer!.type),
    numbers,
  )
  assert.deepEqual(sends, [64, 36])
  await questions.ask(Uint8Array.of(1))
  assert.deepEqual(sends, [64, 36, 1])
})

test('what is asked by those who have just had an answer waits for the others, too', async () => {
  const { asked, sends } = socket()
  const questions = new Questions(asked, 'ask')
  const twice = async (n: number) => {
    await questions.ask(Uint8Array.of(n))
    return questions.ask(Uint8Array.of(n))
  }
  await Promise.all([1, 2, 3].map(twice))
  assert.deepEqual(sends, [3, 3])
})

test('a refusal is the answer of one: absent, or an error', async () => {
  const { asked } = socket()
  const questions = new Questions(asked, 'ask them')
  const [fine, gone, unable, broken] = await Promise.allSettled(
    [7, 100 + ENODEV, 100 + EOPNOTSUPP, 100 + EIO].map(n => questions.ask(Uint8Array.of(n))),
  )
  assert.equal(fine!.status, 'fulfilled')
  assert.deepEqual(gone, { status: 'fulfilled', value: undefined })
  assert.deepEqual(unable, { status: 'fulfilled', value: undefined })
  assert.equal(broken!.status, 'rejected')
  assert.match((broken as PromiseRejectedResult).reason.message, /^ask them: EIO/)
})

test('when nothing is known of any, all are told', async () => {
  const questions = new Questions(socket(new Error('too many at once')).asked, 'ask')
  const all = await Promise.allSettled([1, 2].map(n => questions.ask(Uint8Array.of(n))))
  assert.deepEqual(
    all.map(one => (one as PromiseRejectedResult).reason.message),
    ['too many at once', 'too many at once'],
  )
})

test('of many that are asked together, what is refused or strange costs no other; what is gone is left out', async () => {
  const sends: number[] = []
  let room = 50
  const asked: AskedSocket = {
    ...socket().asked,
    async requestEachInPlace(messages, count, read, operation) {
      sends.push(count)
      assert.equal(messages.length, count)
      if (count > room) throw new NetlinkError(ENOBUFS, operation)
      const view = new DataView(messages.buffer)
      return Array.from({ length: count }, (_, i) => {
        const subject = view.getUint8(i)
        const refusal = { 3: ENODEV, 4: EOPNOTSUPP, 5: EIO, 7: EBADMSG }[subject]
        return refusal === undefined ? read(view, i, i + 1) : new NetlinkError(refusal, operation)
      })
    },
  }
  const questions = new Questions(asked, 'ask them')
  const numbers = Array.from({ length: 130 }, (_, i) => i)
  const askAll = async () => {
    const known: number[] = []
    const failed: string[] = []
    await questions.askAll(
      numbers,
      some => Uint8Array.from(some),
      (view, at) => known.push(view.getUint8(at)),
      (subject, error) => failed.push(`${subject} ${error.message}`),
    )
    return { known, failed }
  }
  const expected = {
    known: numbers.filter(n => ![3, 4, 5, 7].includes(n)),
    failed: ['5 ask them: EIO (i/o error)', '7 ask them: EBADMSG'],
  }
  assert.deepEqual(await askAll(), expected)
  // The buffer turned out to be small: fewer are asked for from then on.
  assert.deepEqual(sends.splice(0), [128, 64, 32, 32, 32, 32, 2])
  assert.deepEqual(await askAll(), expected)
  assert.deepEqual(sends.splice(0), [32, 32, 32, 32, 2])
  room = 0
  await assert.rejects(askAll(), { code: 'ENOBUFS' })
})
