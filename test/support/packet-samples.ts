import { emptyPacketSample, type PacketSample } from '../../agent/samples/packet-sample.ts'
import { frame } from './psample-message.ts'

/** A sample of interface 2 with a counting header of `headerLength` bytes; `changes` replaces fields. */
export function packetSample(headerLength = 128, changes: Partial<PacketSample> = {}): PacketSample {
  const memory = new Uint8Array((headerLength + 3) & ~3).fill(0xee)
  memory.set(frame(headerLength))
  return {
    ...emptyPacketSample(),
    dataSource: 2,
    samplingRate: 1000,
    inputIfIndex: 2,
    outputIfIndex: 3,
    frameLength: 1518,
    stripped: 4,
    headerWords: new Int32Array(memory.buffer),
    headerLength,
    ...changes,
  }
}
