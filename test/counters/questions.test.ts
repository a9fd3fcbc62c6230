import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type AskedSocket, Questions } from '../../agent/counters/questions.ts'
import { NetlinkError } from '../../agent/kernel/netlink-socket.ts'
import type { Message } from '../../agent/wire/netlink/message.ts'

const ENODEV = 19
const EOPNOTSUPP = 95
const EIO = 5

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
