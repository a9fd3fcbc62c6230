import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { BulkQuestion, CounterReader } from '../../agent/counters/reader.ts'
import { Poller, type PollFailure, type ReaderStatus } from '../../agent/datasource/poller.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { hostNetIo } from '../../agent/wire/sflow/counters/host.ts'
import { portName } from '../../agent/wire/sflow/counters/interface.ts'
import type { CountersSampleInput } from '../../agent/wire/sflow/samples.ts'

const INTERVAL_MS = 20_000

interface Sent extends CountersSampleInput {
  readonly atMs: number
}

/** A poller on a clock of its own; advance() lets time pass in steps of 10 ms. */
function bench(
  t: TestContext,
  { timeoutMs, samplesEach = 1 }: { timeoutMs?: number; samplesEach?: number } = {},
) {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  let clock = 1000
  const ledger = new Ledger()
  const sent: Sent[] = []
  const failures: PollFailure[] = []
  const poller = new Poller({
    ledger,
    sink: sample => {
      sent.push({ ...sample, atMs: clock })
      return samplesEach
    },
    onFailure: failure => failures.push(failure),
    now: () => clock,
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  })
  t.after(() => poller.stop())
  const advance = async (ms: number) => {
    for (const end = clock + ms; clock < end; ) {
      clock += 10
      t.mock.timers.tick(10)
      await turn()
    }
  }
  const standStill = (ms: number) => {
    clock += ms
    t.mock.timers.tick(ms)
  }
  const losses = () => Object.fromEntries(ledger.entries().map(({ cause, count }) => [cause, count]))
  return { poller, sent, failures, advance, losses, standStill }
}

function name(text = 'eth0'): CounterReader {
  return { record: portName, read: async () => ({ name: text }) }
}

const QUIET = {
  bytes_in: 0n,
  pkts_in: 0,
  errs_in: 0,
  drops_in: 0,
  bytes_out: 0n,
  pkts_out: 0,
  errs_out: 0,
  drops_out: 0,
}

test('a source is polled at once, then once in each interval, numbered from 1', async t => {
  const { poller, sent, advance, losses } = bench(t)
  poller.add({ type: 2, index: 1, intervalMs: INTERVAL_MS, readers: [name()] })
  poller.start()
  await advance(3 * INTERVAL_MS - 100)
  assert.deepEqual(
    sent.map(({ sequence, sourceType, sourceIndex }) => [sequence, sourceType, sourceIndex]),
    [
      [1, 2, 1],
      [2, 2, 1],
      [3, 2, 1],
    ],
  )
  assert.ok(sent[0]!.atMs <= 1050, `first poll after ${sent[0]!.atMs - 1000} ms`)
  assert.equal(sent[2]!.atMs - sent[1]!.atMs, INTERVAL_MS)
  assert.deepEqual(sent[0]!.records, [{ record: portName, value: { name: 'eth0' } }])
  assert.deepEqual(losses(), { failed: 0, timeout: 0, hanging: 0, missed: 0 })
})

test('readers under way at the stop: not counted, told of, or waited for', async t => {
  const { poller, sent, failures, advance, losses } = bench(t, { timeoutMs: 500 })
  let refuse: (error: Error) => void = () => {}
  const refused = new Promise<undefined>((_, reject) => {
    refuse = reject
  })
  const hanging = { record: portName, read: () => new Promise<undefined>(() => {}) }
  poller.add({ type: 0, index: 1, intervalMs: INTERVAL_MS, readers: [hanging] })
  poller.add({
    type: 0,
    index: 2,
    intervalMs: INTERVAL_MS,
    readers: [{ record: portName, read: () => refused }],
  })
  poller.start()
  await advance(100)
  assert.equal(poller.status()[0]!.pending, 2)
  poller.stop()
  refuse(new Error('closed'))
  await advance(1000)
  assert.deepEqual({ sent, failures }, { sent: [], failures: [] })
  assert.deepEqual(losses(), { failed: 0, timeout: 0, hanging: 0, missed: 0 })
  const [{ errors, timeouts, lastError }] = poller.status() as [ReaderStatus]
  assert.deepEqual({ errors, timeouts, lastError }, { errors: 0, timeouts: 0, lastError: undefined })
})

test('a reader that hangs does not keep the process after the stop', async () => {
  const timers = () => process.getActiveResourcesInfo().filter(kind => kind === 'Timeout').length
  const before = timers()
  const poller = new Poller({ ledger: new Ledger(), sink: () => 1 })
  const asked = new Promise<void>(resolve => {
    const read = () => {
      resolve()
      return new Promise<undefined>(() => {})
    }
    poller.add({ type: 0, index: 1, intervalMs: INTERVAL_MS, readers: [{ record: portName, read }] })
  })
  poller.start()
  await asked
  poller.stop()
  assert.equal(timers(), before)
})

test('a hundred new sources are all polled within a second', async t => {
  const { poller, sent, advance } = bench(t)
  poller.start()
  await advance(5000)
  for (let index = 1; index <= 100; index++) {
    poller.add({ type: 0, index, intervalMs: INTERVAL_MS, readers: [name()] })
  }
  await advance(1000)
  assert.equal(new Set(sent.map(sample => sample.sourceIndex)).size, 100)
})

test('4096 sources start without a burst, are all polled in one interval and then evenly', async t => {
  const { poller, sent, advance } = bench(t)
  poller.start()
  for (let index = 1; index <= 4096; index++) {
    poller.add({ type: 0, index, intervalMs: INTERVAL_MS, readers: [name()] })
  }
  const perSecond = (seconds: number) => {
    const counts = new Array<number>(seconds).fill(0)
    for (const { atMs } of sent) counts[Math.floor((atMs - sent[0]!.atMs) / 1000)]!++
    return counts
  }
  await advance(INTERVAL_MS + 100)
  assert.equal(new Set(sent.map(sample => sample.sourceIndex)).size, 4096)
  assert.ok(
    perSecond(21).every(count => count <= 450),
    `first interval: ${perSecond(21)}`,
  )
  await advance(2 * INTERVAL_MS)
  sent.length = 0
  await advance(INTERVAL_MS)
  assert.equal(sent.length, 4096)
  // Those of one phase are asked together: 32 phases of 128 sources, one or two phases in a second.
  assert.ok(
    perSecond(20).every(count => count === 128 || count === 256),
    `later: ${perSecond(20)}`,
  )
  assert.equal(new Set(sent.map(({ atMs }) => atMs)).size, 32)
})

test('the others keep their phase when a source goes, and a new one takes the free place', async t => {
  const { poller, sent, advance } = bench(t)
  poller.start()
  for (let index = 1; index <= 4; index++) {
    poller.add({ type: 0, index, intervalMs: INTERVAL_MS, readers: [name()] })
  }
  await advance(2 * INTERVAL_MS)
  const phases = () =>
    new Map(sent.slice(-poller.sources).map(({ sourceIndex, atMs }) => [sourceIndex, atMs % INTERVAL_MS]))
  const before = phases()
  assert.equal(new Set(before.values()).size, 4)
  poller.remove(0, 2)
  await advance(2 * INTERVAL_MS)
  const after = phases()
  assert.deepEqual([...after.keys()].sort(), [1, 3, 4])
  for (const [index, phase] of after) assert.equal(phase, before.get(index), `phase of ${index}`)
  poller.add({ type: 0, index: 9, intervalMs: INTERVAL_MS, readers: [name()] })
  await advance(2 * INTERVAL_MS)
  assert.equal(phases().get(9), before.get(2))
})

test('a reader that answers at once, and one that throws at once', async t => {
  const { poller, sent, failures, advance, losses } = bench(t)
  const refusing = {
    record: hostNetIo,
    read: () => {
      throw new Error('not today')
    },
  }
  const ready = { record: portName, read: () => ({ name: 'eth0' }) }
  poller.add({ type: 0, index: 1, intervalMs: INTERVAL_MS, readers: [refusing, ready] })
  poller.start()
  await advance(100)
  assert.deepEqual(
    sent.map(({ records }) => records),
    [[{ record: portName, value: { name: 'eth0' } }]],
  )
  assert.deepEqual(
    failures.map(({ reader, error }) => `${reader}: ${error.message}`),
    ['host_net_io: not today'],
  )
  assert.equal(losses().failed, 1)
  assert.deepEqual(
    poller.status().map(({ name, count, errors, pending }) => [name, count, errors, pending]),
    [
      ['host_net_io', 1, 1, 0],
      ['port_name', 1, 0, 0],
    ],
  )
})

test('a reader that fails costs its own structure only', async t => {
  const { poller, sent, failures, advance, losses } = bench(t)
  const broken: CounterReader = { record: hostNetIo, read: () => Promise.reject(new Error('no such file')) }
  poller.add({ type: 2, index: 1, intervalMs: INTERVAL_MS, readers: [broken, name()] })
  poller.start()
  await advance(INTERVAL_MS + 100)
  assert.deepEqual(
    sent.map(({ sequence, records }) => [sequence, records.map(({ record }) => record.name)]),
    [
      [1, ['port_name']],
      [2, ['port_name']],
    ],
  )
  assert.equal(losses().failed, 2)
  assert.deepEqual(failures[0], {
    sourceType: 2,
    sourceIndex: 1,
    reader: 'host_net_io',
    error: new Error('no such file'),
  })
  const status = poller.status().find(reader => reader.name === 'host_net_io')!
  assert.deepEqual([status.count, status.errors, status.lastError], [2, 2, 'no such file'])
})

test('no sample without a record, and none of the sequence is used up', async t => {
  const { poller, sent, advance } = bench(t)
  let has = false
  const reader: CounterReader = { record: portName, read: async () => (has ? { name: 'a' } : undefined) }
  poller.add({ type: 0, index: 1, intervalMs: 1000, readers: [reader] })
  poller.start()
  await advance(3000)
  assert.equal(sent.length, 0)
  has = true
  await advance(1000)
  assert.deepEqual(
    sent.map(sample => sample.sequence),
    [1],
  )
})

test('a reader that hangs delays no other source, and is not asked again until it has answered', async t => {
  const { poller, sent, advance, losses } = bench(t)
  let asked = 0
  let hangs = true
  let answer = () => {}
  const hanging: CounterReader = {
    record: hostNetIo,
    read: () => {
      asked++
      return hangs ? new Promise(resolve => (answer = () => resolve(QUIET))) : Promise.resolve(QUIET)
    },
  }
  poller.add({ type: 0, index: 1, intervalMs: INTERVAL_MS, readers: [name('slow'), hanging] })
  poller.add({ type: 0, index: 2, intervalMs: INTERVAL_MS, readers: [name('quick')] })
  poller.start()
  await advance(1000)
  assert.deepEqual(
    sent.map(sample => sample.sourceIndex),
    [2],
    'only the other source so far',
  )
  await advance(1100)
  assert.deepEqual(
    sent.map(({ sourceIndex, records }) => [sourceIndex, records.length]),
    [
      [2, 1],
      [1, 1],
    ],
    'the sample went out without the structure that hangs, after the time limit',
  )
  assert.deepEqual(losses(), { failed: 0, timeout: 1, hanging: 0, missed: 0 })
  await advance(2 * INTERVAL_MS)
  assert.equal(asked, 1)
  assert.equal(losses().hanging, 2)
  assert.equal(poller.status().find(reader => reader.name === 'host_net_io')!.pending, 1)
  answer()
  hangs = false
  await advance(INTERVAL_MS)
  assert.equal(asked, 2)
  assert.equal(sent.at(-1)!.records.length, 2, 'it is asked again and its answer is sent')
})

/** Readers that ask together, of sources 1 to `count`, and what was asked. */
function together(poller: Poller, count: number) {
  const asked: (readonly number[])[] = []
  const answers: { resolve: (texts: Map<number, string>) => void; reject: (error: Error) => void }[] = []
  const bulk: BulkQuestion<ReadonlyMap<number, string>> = {
    ask(indexes) {
      asked.push(indexes)
      return new Promise((resolve, reject) => answers.push({ resolve, reject }))
    },
  }
  for (let index = 1; index <= count; index++) {
    const reader: CounterReader<typeof portName, ReadonlyMap<number, string>> = {
      record: portName,
      bulk,
      read(texts) {
        const text = texts!.get(index)
        return text === undefined ? undefined : { name: text }
      },
    }
    const quiet: CounterReader = { record: hostNetIo, read: () => QUIET }
    poller.add({ type: 0, index, intervalMs: INTERVAL_MS, readers: [reader as CounterReader, quiet] })
  }
  return { asked, answers }
}

test('what is due together is asked together, and each has its own of the answer', async t => {
  const { poller, sent, advance, losses } = bench(t)
  poller.add({ type: 2, index: 1, intervalMs: INTERVAL_MS, readers: [name('host')] })
  const { asked, answers } = together(poller, 3)
  poller.start()
  await advance(100)
  assert.deepEqual(asked.flat().sort(), [1, 2, 3])
  assert.deepEqual(
    sent.map(({ sourceType }) => sourceType),
    [2],
    'nobody else waits for the answer',
  )
  // The second interface is gone.
  const texts = new Map([
    [1, 'eth1'],
    [3, 'eth3'],
  ])
  for (const { resolve } of answers) resolve(texts)
  await advance(100)
  assert.deepEqual(
    sent.slice(1).map(({ sourceIndex, records }) => [sourceIndex, records[0]!.value]),
    [
      [1, { name: 'eth1' }],
      [2, QUIET],
      [3, { name: 'eth3' }],
    ],
  )
  assert.deepEqual(losses(), { failed: 0, timeout: 0, hanging: 0, missed: 0 })
  assert.deepEqual(statusOf(poller, 'port_name'), { count: 4, errors: 0, timeouts: 0, pending: 0 })
})

test('a question for many that fails costs each the structure and nothing else', async t => {
  const { poller, sent, advance, losses, failures } = bench(t)
  const { answers } = together(poller, 3)
  poller.start()
  await advance(100)
  for (const { reject } of answers) reject(new Error('no'))
  await advance(100)
  assert.deepEqual(
    sent.map(({ sourceIndex, records }) => [sourceIndex, records.map(({ value }) => value)]),
    [1, 2, 3].map(index => [index, [QUIET]]),
  )
  assert.deepEqual(losses(), { failed: 3, timeout: 0, hanging: 0, missed: 0 })
  assert.deepEqual(
    failures.map(({ sourceIndex, reader, error }) => `${sourceIndex} ${reader} ${error.message}`),
    ['1 port_name no', '2 port_name no', '3 port_name no'],
  )
})

test('a question for many that hangs: after a time they go without, and it is not asked again meanwhile', async t => {
  const { poller, sent, advance, losses } = bench(t)
  const { asked, answers } = together(poller, 3)
  poller.start()
  await advance(2000)
  assert.equal(sent.length, 0)
  await advance(200)
  assert.deepEqual(
    sent.map(({ records }) => records.length),
    [1, 1, 1],
  )
  assert.deepEqual(losses(), { failed: 0, timeout: 3, hanging: 0, missed: 0 })
  const questions = asked.length
  // Their phases are at 0, a quarter and half of the interval.
  await advance(1.5 * INTERVAL_MS)
  assert.equal(asked.length, questions)
  assert.equal(losses().hanging, 3)
  assert.deepEqual(statusOf(poller, 'port_name'), { count: 0, errors: 0, timeouts: 3, pending: 3 })
  assert.equal(sent.length, 6, 'what does not hang is told all the same')
  for (const { resolve } of answers.splice(0)) resolve(new Map())
  await advance(100)
  assert.equal(sent.length, 6, 'what comes late is not told')
  await advance(INTERVAL_MS)
  assert.deepEqual(asked.slice(questions).flat().sort(), [1, 2, 3])
})

test('a source that goes while others are asked with it is not told of', async t => {
  const { poller, sent, advance } = bench(t)
  const { answers } = together(poller, 2)
  poller.start()
  await advance(100)
  poller.remove(0, 1)
  const texts = new Map([
    [1, 'eth1'],
    [2, 'eth2'],
  ])
  for (const { resolve } of answers) resolve(texts)
  await advance(100)
  assert.deepEqual(
    sent.map(({ sourceIndex, records }) => [sourceIndex, records[0]!.value]),
    [[2, { name: 'eth2' }]],
  )
})

function statusOf(poller: Poller, reader: string) {
  const { count, errors, timeouts, pending } = poller.status().find(({ name }) => name === reader)!
  return { count, errors, timeouts, pending }
}

test('a hang and its late failure are one loss', async t => {
  const { poller, advance, losses } = bench(t, { timeoutMs: 100 })
  const late: CounterReader = {
    record: portName,
    read: () => new Promise((_, reject) => setTimeout(() => reject(new Error('gone')), 500)),
  }
  poller.add({ type: 0, index: 1, intervalMs: INTERVAL_MS, readers: [late] })
  poller.start()
  await advance(1000)
  assert.deepEqual(losses(), { failed: 0, timeout: 1, hanging: 0, missed: 0 })
})

test('a 64-bit counter that goes back restarts the sequence; standing still does not', async t => {
  const { poller, sent, advance } = bench(t)
  const octets = [10n, 20n, 20n, 5n, 6n]
  const reader: CounterReader = {
    record: hostNetIo,
    read: async () => ({ ...QUIET, bytes_in: octets.shift()! }),
  }
  poller.add({ type: 0, index: 1, intervalMs: 1000, readers: [reader] })
  poller.start()
  await advance(4500)
  assert.deepEqual(
    sent.map(sample => sample.sequence),
    [1, 2, 3, 1, 2],
  )
})

test('a sample that was sent in several takes as many sequence numbers', async t => {
  for (const [samplesEach, expected] of [
    [3, [1, 4, 7]],
    [0, [1, 1, 1]],
  ] as const) {
    await t.test(`${samplesEach} samples`, async t => {
      const { poller, sent, advance } = bench(t, { samplesEach })
      poller.add({ type: 2, index: 1, intervalMs: 1000, readers: [name()] })
      poller.start()
      await advance(2500)
      assert.deepEqual(
        sent.map(sample => sample.sequence),
        expected,
      )
    })
  }
})

test('an interface made anew begins at sequence 1, and the old one answers no more', async t => {
  const { poller, sent, advance } = bench(t)
  let answer = (_: { name: string }) => {}
  const old: CounterReader = { record: portName, read: () => new Promise(resolve => (answer = resolve)) }
  poller.add({ type: 0, index: 1, intervalMs: INTERVAL_MS, readers: [old] })
  poller.start()
  await advance(100)
  poller.add({ type: 0, index: 1, intervalMs: INTERVAL_MS, readers: [name('new')] })
  answer({ name: 'old' })
  await advance(1000)
  assert.deepEqual(
    sent.map(({ sequence, records }) => [sequence, records[0]!.value]),
    [[1, { name: 'new' }]],
  )
  assert.equal(poller.sources, 1)
})

test('the interval changes while running; 0 stops the source', async t => {
  const { poller, sent, advance } = bench(t)
  poller.add({ type: 0, index: 1, intervalMs: INTERVAL_MS, readers: [name()] })
  poller.start()
  await advance(INTERVAL_MS + 100)
  assert.equal(sent.length, 2)
  poller.changeInterval(0, 1, 1000)
  await advance(5000)
  assert.equal(sent.length, 7)
  poller.changeInterval(0, 1, 0)
  await advance(INTERVAL_MS)
  assert.equal(sent.length, 7)
  poller.changeInterval(0, 1, 1000)
  await advance(2000)
  assert.equal(sent.length, 9)
  assert.equal(sent.at(-1)!.sequence, 9)
})

test('polls missed while the process stood still are counted, not made up for', async t => {
  const { poller, sent, advance, standStill, losses } = bench(t)
  poller.add({ type: 0, index: 1, intervalMs: 1000, readers: [name(), name()] })
  poller.start()
  await advance(500)
  standStill(3000)
  await advance(1000)
  assert.equal(sent.length, 3)
  assert.equal(losses().missed, 4)
})

test('stop ends it, also twice, and what is under way is not sent', async t => {
  const { poller, sent, advance } = bench(t)
  let answer = (_: { name: string }) => {}
  const slow: CounterReader = { record: portName, read: () => new Promise(resolve => (answer = resolve)) }
  poller.add({ type: 0, index: 1, intervalMs: 1000, readers: [slow] })
  poller.start()
  await advance(100)
  poller.stop()
  poller.stop()
  answer({ name: 'late' })
  await advance(5000)
  assert.equal(sent.length, 0)
})
