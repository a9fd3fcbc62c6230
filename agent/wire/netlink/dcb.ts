/**
 * Data center bridging by rtnetlink (include/uapi/linux/dcbnl.h): what priority flow control (IEEE 802.1Qbb) has counted.
 *
 *     dcbmsg    family u8 · cmd u8 · pad u16
 *     ieee_pfc  pfc_cap u8 · pfc_en u8 · mbc u8 · pad · delay u16 · pad · requests 8 × u64 · indications 8 × u64
 */
import { NetlinkFormatError } from './attributes.ts'
import { type Message, MessageBuilder } from './message.ts'
import { attributesAfter } from './rt.ts'

const RTM_GETDCB = 78
const DCB_HEADER = 4
const DCB_CMD_IEEE_GET = 21
const DCB_ATTR = { ifname: 1, ieee: 13 } as const
const IEEE_PFC = 2
const PFC_BYTES = 136
const PRIORITIES = 8
const PFC = { enabled: 1, requests: 8, indications: 72 } as const

export interface PfcState {
  /** A bit for each priority that may pause, and be paused. */
  readonly enabled: number
  /** Pause frames sent, of each priority since the interface was made. */
  readonly requests: readonly bigint[]
  /** Pause frames received. */
  readonly indications: readonly bigint[]
}

/** Request for the state of one interface, by its name. EOPNOTSUPP: the driver, or the kernel, has none. */
export function getPfc(name: string): Uint8Array<ArrayBuffer> {
  return new MessageBuilder(RTM_GETDCB, 0, Uint8Array.of(0, DCB_CMD_IEEE_GET, 0, 0))
    .text(DCB_ATTR.ifname, name)
    .build()
}

/** Reads the reply to getPfc(); undefined when the driver has bridging but no priority flow control. */
export function readPfc(message: Message): PfcState | undefined {
  const bytes = attributesAfter(message, DCB_HEADER).nest(DCB_ATTR.ieee)?.bytes(IEEE_PFC)
  if (bytes === undefined) return undefined
  if (bytes.length < PFC_BYTES) {
    throw new NetlinkFormatError('wrong-size', 0, `flow control state of ${bytes.length} bytes`)
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const counters = (at: number) =>
    Array.from({ length: PRIORITIES }, (_, priority) => view.getBigUint64(at + 8 * priority, true))
  return {
    enabled: view.getUint8(PFC.enabled),
    requests: counters(PFC.requests),
    indications: counters(PFC.indications),
  }
}
