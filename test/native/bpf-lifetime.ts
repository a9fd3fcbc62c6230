/**
 * Takes BPF objects through everything that can happen to them: closed early, with jobs under way, left to the
 * collector of garbage, and with a worker whose environment ends while it waits for a ring buffer. Run by
 * lifetime.test.ts, once as it is and once under AddressSanitizer. Throws at the first thing wrong.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { builtFile } from '../../agent/kernel/addon.ts'
import { BpfObject } from '../../agent/kernel/bpf-object.ts'
import { RingBuffer } from '../../agent/kernel/ring-buffer.ts'

setFlagsFromString('--expose-gc')
const gc: () => void = runInNewContext('gc')

const load = () =>
  BpfObject.load({ name: 'sample.bpf.o', bytes: readFileSync(builtFile('bpf/sample.bpf.o')) })
const ring = (object: BpfObject) =>
  new RingBuffer({ object, map: 'events', onRecord: () => {}, onBatchEnd: () => {}, setAsleep: () => {} })

/** Descriptors of maps, programs and links of the whole process. */
function descriptors(): number {
  return readdirSync('/proc/self/fd').filter(fd => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes('bpf')
    } catch {
      return false
    }
  }).length
}

/** Waits until the process has none of them, collecting garbage meanwhile. */
async function settle(): Promise<void> {
  for (let i = 0; i < 200 && descriptors() !== 0; i++) {
    gc()
    await new Promise(resolve => setTimeout(resolve, 5))
  }
  assert.equal(descriptors(), 0)
}

const steps: Record<string, () => Promise<void>> = {
  'loaded and closed': async () => {
    for (let i = 0; i < 10; i++) await (await load()).close()
  },

  'left to the collector of garbage, with memory mapped': async () => {
    for (let i = 0; i < 10; i++) new Uint32Array((await load()).memory('.data', 0, 8, 'writable')).fill(1)
  },

  'closed with jobs behind one another': async () => {
    const object = await load()
    const jobs = [
      object.attachTcx('weir_ingress', 0x7fffffff),
      object.attachTracing('weir_ingress'),
      object.detach(1),
      object.close(),
      object.detach(1),
    ]
    const codes = (await Promise.allSettled(jobs)).map(result =>
      result.status === 'rejected' ? result.reason.code : 'done',
    )
    assert.deepEqual(codes, ['ENODEV', 'EOPNOTSUPP', 'ENOENT', 'done', 'EBADF'])
  },

  'nobody waits for the load': async () => {
    for (let i = 0; i < 10; i++) void load()
  },

  'a ring buffer that is read, falls asleep and is closed': async () => {
    const object = await load()
    const buffer = ring(object)
    await new Promise(resolve => setTimeout(resolve, 300))
    buffer.close()
    buffer.close()
    await object.close()
    assert.equal(buffer.drain(), 0)
  },

  'watching twice is refused': async () => {
    const object = await load()
    object.watch('events', () => {})
    assert.throws(() => object.watch('events', () => {}), { code: 'EALREADY' })
    object.arm()
    object.arm()
    await object.close()
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
    await Promise.all(ends.map(run))
  },
}

/** In a worker: one object asleep on its ring buffer, one that is being loaded, one without a name; then the end. */
async function inWorker(how: string): Promise<void> {
  const object = await load()
  const buffer = ring(object)
  await load()
  void load()
  await new Promise(resolve => setTimeout(resolve, 200))
  parentPort!.postMessage('ready')
  if (how === 'exit') process.exit(0)
  if (how === 'throw') throw new Error('the worker fails')
  if (how === 'return') {
    buffer.close()
    await object.close()
  }
}

if (isMainThread) {
  for (const [name, step] of Object.entries(steps)) {
    await step()
    await settle()
    console.log(name)
  }
  console.log('all done')
} else {
  await inWorker(workerData as string)
}
