import { Classifier, type ClassifierOptions, type LeftOut, type Verdict } from '../drops/classifier.ts'
import { Limiter } from '../drops/limiter.ts'
import type { Datagrams } from '../export/datagrams.ts'
import type { Ledger, Loss } from '../health/ledger.ts'
import type { Drop } from '../samples/drop.ts'
import { discardedPacketBytesWithoutHeader, writeDrop } from '../wire/sflow/discarded-packet-writer.ts'

/**
 * The data source of dropped packets, 0:0: decides which drops are reported, holds the rest back, numbers the
 * notifications and writes them. For what it is given: offered = exported + left out + suppressed + too long.
 */

export interface NotifierOptions {
  readonly datagrams: Datagrams
  readonly ledger: Ledger
  /** Milliseconds on a monotonic clock. */
  readonly now: () => number
  /** Whether a dropped packet is a datagram of the agent's. */
  readonly isOwn?: (drop: Drop) => boolean
}

/** What is reported, and how much of it. */
export interface NotifierSettings extends ClassifierOptions {
  /** Octets of a packet to export at most. */
  readonly headerBytes: number
  /** Notifications per second at most. */
  readonly limit: number
}

/** One reason on one interface, for the status. */
export interface DropCount {
  readonly reason: string
  /** sFlow discard reason. */
  readonly code: number
  /** Of the interface by which the packets came in, or else were to leave; 0 when neither is known. */
  readonly ifIndex: number
  /** Drops seen, and those of them not sent: because of the limit, or lost on the way here. */
  readonly offered: number
  readonly suppressed: number
}

const OWN: Verdict = { id: 0, label: 'datagram of this agent', code: 0, leftOut: 'own-datagram' }

export class Notifier {
  offered = 0
  exported = 0
  /** Drops left out because nothing was lost, or because the configuration says so. */
  readonly leftOut: Record<LeftOut, number> = {
    noise: 0,
    host: 0,
    hidden: 0,
    'unknown-trap': 0,
    'own-datagram': 0,
  }

  readonly #datagrams: Datagrams
  readonly #now: () => number
  readonly #isOwn: (drop: Drop) => boolean
  #classifier!: Classifier
  #limiter!: Limiter
  #headerBytes = 0
  readonly #suppressed: Loss
  readonly #tooLong: Loss
  readonly #state = { sequence: 0, drops: 0 }

  /** Takes nothing before change() has told what is reported. */
  constructor({ datagrams, ledger, now, isOwn = () => false }: NotifierOptions) {
    this.#datagrams = datagrams
    this.#now = now
    this.#isOwn = isOwn
    this.#suppressed = ledger.loss(
      'notifier',
      'suppressed',
      'drops seen and not reported because of dropmon.limit; the status counts them by reason and interface',
    )
    this.#tooLong = ledger.loss(
      'notifier',
      'too-long',
      'the notification does not fit into a datagram; raise datagramBytes',
    )
  }

  /** Goes on with other settings: numbers and sums go on, the counts by reason and interface begin again. */
  change(settings: NotifierSettings): void {
    this.#classifier = new Classifier(settings)
    this.#limiter = new Limiter(settings.limit, this.#now)
    this.#headerBytes = settings.headerBytes
  }

  /** Takes one drop from a source, and gives what was thought of it. The record is borrowed until this returns. */
  readonly accept = (drop: Drop): Verdict => {
    this.offered++
    const verdict = this.#isOwn(drop) ? OWN : this.#classifier.classify(drop)
    if (verdict.leftOut !== undefined) {
      this.leftOut[verdict.leftOut]++
    } else if (this.#limiter.take(verdict.id, drop.inputIfIndex || drop.outputIfIndex)) {
      this.#write(drop, verdict.code)
    } else {
      this.#suppressed.count++
      this.lost(1)
    }
    return verdict
  }

  /** The verdict on a drop, which is not taken. */
  judge(drop: Drop): Verdict {
    return this.#classifier.classify(drop)
  }

  /** Why drops with this kernel reason are left out, whatever else is known of them; undefined when they are not. */
  leftOutByReason(reason: string): LeftOut | undefined {
    return this.#classifier.leftOutByReason(reason)
  }

  /** Drops of a verdict on an interface that a source held back by itself. */
  heldBack(verdict: Verdict, ifIndex: number, count: number): void {
    if (verdict.leftOut !== undefined) {
      this.leftOutBefore(verdict.leftOut, count)
      return
    }
    this.offered += count
    this.#suppressed.count += count
    this.lost(count)
    this.#limiter.holdBack(verdict.id, ifIndex, count)
  }

  /** Drops that were to be reported and were lost on their way here; who lost them has counted them in the ledger. */
  lostOf(verdict: Verdict, ifIndex: number, count: number): void {
    this.lost(count)
    this.#limiter.holdBack(verdict.id, ifIndex, count)
  }

  /** Drops that a source left out by itself. */
  leftOutBefore(why: LeftOut, count: number): void {
    this.offered += count
    this.leftOut[why] += count
  }

  /** Notifications that one reason on one interface may have in the second that is running. */
  get share(): number {
    return this.#limiter.share
  }

  /** The sFlow discard reason of a drop, which is not reported by that; undefined when nothing was lost. */
  discardReasonOf(drop: Drop): number | undefined {
    const { code, leftOut } = this.#classifier.classify(drop)
    return leftOut === 'noise' ? undefined : code
  }

  /** All drops of a batch have been given: the datagrams that they filled leave. */
  readonly endBatch = (): void => {
    this.#limiter.endBatch()
    this.#datagrams.send()
  }

  /** Notifications were lost before they came here: the field `drops` grows. */
  readonly lost = (count: number): void => {
    this.#state.drops = (this.#state.drops + count) >>> 0
  }

  /** What was seen and what was held back, by reason and interface; in the order in which they first came. */
  counts(): DropCount[] {
    return this.#limiter.pairs().map(({ reason, ifIndex, offered, suppressed }) => {
      const { label, code } = this.#classifier.verdict(reason)
      return { reason: label, code, ifIndex, offered, suppressed }
    })
  }

  #write(drop: Drop, code: number): void {
    const datagrams = this.#datagrams
    const state = this.#state
    const fixed = discardedPacketBytesWithoutHeader(drop)
    const room = datagrams.room - fixed
    if (room < 0) {
      this.#tooLong.count++
      this.lost(1)
      return
    }
    const length = Math.min(drop.headerLength, this.#headerBytes, room & ~3)
    // Collectors that do not know this sample lose what comes behind it.
    const at = datagrams.reserve(fixed + ((length + 3) & ~3), true)
    state.sequence = (state.sequence + 1) >>> 0
    datagrams.commit(writeDrop(datagrams, at, drop, code, state, length))
    this.exported++
  }
}
