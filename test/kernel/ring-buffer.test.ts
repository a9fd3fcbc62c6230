/** Records of a BPF ring come soon, however the reader was waiting when they were made. */
import assert from 'node:assert/strict'
import { readFileSync, statSync } from 'node:fs'
import { test } from 'node:test'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { builtFile } from '../../agent/kernel/addon.ts'
import { BpfObject } from '../../agent/kernel/bpf-object.ts'
import { KernelSocket } from '../../agent/kernel/native.ts'
import { RingBuffer } from '../../agent/kernel/ring-buffer.ts'
import { AF_INET, internetAddress } from '../../agent/kernel/sockaddr.ts'
import { dropTracePoints } from '../../agent/sources/bpf-drops.ts'
import { DROP_CONSTANTS, DROP_CONTROL, DROP_EVENT } from '../../agent/wire/bpf/layout.ts'
import { ip } from '../support/lab.ts'

const BURSTS = 24
const MOST_PACKETS = 20
/** More of them, at once and without a pause, until the records have come to the end of the ring and gone on at its beginning. */
const LARGE_BURSTS = 16
const LARGE_PACKETS = 500
/** Of all packets; the beginning of an IP header with this length is ours. */
const PAYLOAD_BYTES = 91
/** The reader falls asleep when nothing has come for about this long. */
const SLEEPS_AFTER_MS = 220

const PATIENCE_MS = 20_000

interface Sending {
  readonly namespace: string
  /** Packets sent so far, and records that have come. */
  readonly counts: Int32Array
}
const [SENT, CAME] = [0, 1]

if (isMainThread) test('bursts of drops with pauses in which the reader falls asleep', arrive)
else sendBursts(workerData as Sending)

async function arrive(t: { after(cleanup: () => unknown): void }): Promise<void> {
  const namespace = `weir-R-${process.pid}`
  ip(`netns add ${namespace}`)
  t.after(() => ip(`netns del ${namespace}`))
  ip(`-n ${namespace} link set lo up`)
  const constants = new DataView(new ArrayBuffer(DROP_CONSTANTS.bytes))
  constants.setUint32(DROP_CONSTANTS.headerBytes, 128, true)
  constants.setUint32(DROP_CONSTANTS.namespace, statSync(`/run/netns/${namespace}`).ino, true)
  constants.setUint32(DROP_CONSTANTS.slots, 64, true)
  const { software } = dropTracePoints(readFileSync('/sys/kernel/btf/vmlinux'))
  const object = await BpfObject.load({
    name: 'drops',
    bytes: readFileSync(builtFile('bpf/drops.bpf.o')),
    constants: { '.rodata': new Uint8Array(constants.buffer) },
    without: ['weir_drop', 'weir_drop_at_socket', 'weir_trap'].filter(program => program !== software),
  })
  t.after(() => object.close())
  const control = new Int32Array(object.memory('.data', 0, DROP_CONTROL.bytes, 'writable'))
  for (const member of ['share', 'limit'] as const) control[DROP_CONTROL[member] >> 2] = 2 ** 31 - 1
  control[DROP_CONTROL.second >> 2] = 1
  await object.attachTracing(software!)
  const counts = new Int32Array(new SharedArrayBuffer(8))
  const ring: RingBuffer = new RingBuffer({
    object,
    map: 'events',
    onRecord: offset => {
      const frameBytes = ring.view.getUint32(offset + DROP_EVENT.frameBytes, true)
      // The last byte can be read, too.
      ring.view.getUint8(offset + DROP_EVENT.bytes - 1)
      if (frameBytes === 14 + 20 + 8 + PAYLOAD_BYTES) Atomics.add(counts, CAME, 1)
    },
    onBatchEnd: () => void Atomics.notify(counts, CAME),
    setAsleep: asleep => Atomics.store(control, DROP_CONTROL.asleep >> 2, asleep ? 1 : 0),
  })
  t.after(() => ring.close())
  const workerData: Sending = { namespace, counts }
  const sender = new Worker(import.meta.filename, { workerData })
  await new Promise((resolve, reject) => sender.on('exit', resolve).on('error', reject))
  assert.equal(counts[CAME], counts[SENT])
  const ringBytes = object.entries('events')
  assert.ok(counts[CAME]! * DROP_EVENT.bytes > ringBytes, 'the ring is full once')
  assert.ok(ring.view.byteLength < 1.1 * ringBytes, 'the data are not mapped twice, which is twice resident')
}

/** To a port where nobody listens. The next burst comes when all of the one before has: nothing else wakes the reader. */
function sendBursts({ namespace, counts }: Sending): void {
  const SOCK_DGRAM = 2
  const socket = KernelSocket.open('bursts', AF_INET, SOCK_DGRAM, 0, namespace)
  socket.connect(internetAddress('127.0.0.1', 9)!, 'connect')
  const nothing = new Int32Array(new SharedArrayBuffer(4))
  const memory = new ArrayBuffer(PAYLOAD_BYTES)
  const span = Int32Array.of(0, PAYLOAD_BYTES)
  for (let burst = 0; burst < BURSTS + LARGE_BURSTS; burst++) {
    const isLarge = burst >= BURSTS
    const packets = isLarge ? LARGE_PACKETS : 1 + Math.floor(Math.random() * MOST_PACKETS)
    // Each second time the socket has the answer that the port is closed, and the packet is not sent.
    for (let i = 0; i < 2 * packets; i++) {
      if (socket.sendBatch(memory, span, 0, 1) === 1) Atomics.add(counts, SENT, 1)
    }
    const deadline = performance.now() + PATIENCE_MS
    for (let came = 0; came < counts[SENT]!; came = Atomics.load(counts, CAME)) {
      assert.ok(performance.now() < deadline, `burst ${burst}: ${came} records of ${counts[SENT]}`)
      Atomics.wait(counts, CAME, came, 1000)
    }
    if (!isLarge) Atomics.wait(nothing, 0, 0, SLEEPS_AFTER_MS - 40 + Math.random() * 80)
  }
  socket.close()
}
