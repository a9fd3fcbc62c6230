import type { CollectorStatus } from '../export/collectors.ts'
import type { DatagramBalance } from '../export/exporter.ts'
import type { Balance, Ledger } from '../health/ledger.ts'
import type { DropStatus } from '../parts/drop-reports.ts'

/** The ledger as it is told: for each stage what came, what became of it, and whether the two sides are equal. */

export interface LedgerStatus {
  readonly identities: readonly Identity[]
  /** Every loss there can be, in the order in which the parts named them. */
  readonly losses: readonly {
    readonly stage: string
    readonly cause: string
    readonly count: number
    readonly help: string
  }[]
}

/** offered = the sum of the parts + under way + difference. */
export interface Identity {
  /** The stage: a source, `sampler`, `notifier`, `counters`, `collector …`. */
  readonly stage: string
  /** What is counted. */
  readonly unit: 'samples' | 'drops' | 'structures' | 'datagrams'
  readonly offered: number
  readonly parts: readonly IdentityPart[]
  /** Waits in the kernel, or is being followed there; 0 where nothing can wait. */
  readonly underWay: number
  /** What is not accounted for: 0, or there is a mistake in weir. */
  readonly difference: number
}

export interface IdentityPart {
  readonly name: string
  readonly count: number
  readonly isLoss: boolean
}

export interface LedgerParts {
  readonly ledger: Ledger
  readonly sources: readonly { readonly name: string; readonly balance: Balance }[]
  readonly sampler: { readonly offered: number; readonly exported: number; readonly subSampled: number }
  readonly counters: { readonly offered: number; readonly exported: number }
  readonly drops: DropStatus | undefined
  readonly datagrams: DatagramBalance
  readonly collectors: readonly CollectorStatus[]
}

export function ledgerOf(parts: LedgerParts): LedgerStatus {
  const { ledger, sources, sampler, counters, drops, datagrams, collectors } = parts
  const lossesOf = (stage: string, ...causes: string[]): IdentityPart[] =>
    ledger
      .entries()
      .filter(loss => loss.stage === stage && (causes.length === 0 || causes.includes(loss.cause)))
      .map(({ cause, count }) => ({ name: cause, count, isLoss: true }))

  const identities: Identity[] = sources.map(({ name, balance }) => {
    const unit = name === 'drop-monitor' ? 'drops' : 'samples'
    return ofSource(name, unit, balance)
  })
  identities.push(
    identity('sampler', 'samples', sampler.offered, [
      passed('exported', sampler.exported),
      passed('merged', sampler.subSampled),
      ...lossesOf('sampler'),
    ]),
  )
  if (drops !== undefined) {
    identities.push(
      identity('notifier', 'drops', drops.offered, [
        passed('exported', drops.exported),
        ...Object.entries(drops.leftOut).map(([why, count]) => passed(`left out: ${why}`, count)),
        ...lossesOf('notifier'),
      ]),
    )
  }
  identities.push(
    identity('counters', 'structures', counters.offered, [
      passed('exported', counters.exported),
      ...lossesOf('counters', 'too-long', 'invalid'),
    ]),
  )
  identities.push(ofDatagrams(datagrams))
  for (const { name, offered, sent, lost } of collectors) {
    const lostParts = [{ name: 'lost', count: lost, isLoss: true }]
    identities.push(identity(`collector ${name}`, 'datagrams', offered, [passed('sent', sent), ...lostParts]))
  }
  return {
    identities,
    losses: ledger.entries().map(({ stage, cause, count, help }) => ({ stage, cause, count, help })),
  }
}

/** Closed ones wait for the end of a batch, or a moment. */
function ofDatagrams({ filled, given, unclaimed, withoutAddress }: DatagramBalance): Identity {
  const rest = filled - given - unclaimed - withoutAddress
  return {
    stage: 'datagrams',
    unit: 'datagrams',
    offered: filled,
    parts: [
      passed('given to collectors', given),
      passed('without a collector', unclaimed),
      { name: 'no-agent-address', count: withoutAddress, isLoss: true },
    ],
    underWay: Math.max(rest, 0),
    difference: Math.min(rest, 0),
  }
}

/** What a source lacks to its sum waits in the kernel; more than there can be is a mistake. */
function ofSource(stage: string, unit: Identity['unit'], { offered, delivered, lost }: Balance): Identity {
  const rest = offered - delivered - lost
  const parts = [passed('delivered', delivered), { name: 'lost', count: lost, isLoss: true }]
  return { stage, unit, offered, parts, underWay: Math.max(rest, 0), difference: Math.min(rest, 0) }
}

function identity(
  stage: string,
  unit: Identity['unit'],
  offered: number,
  parts: readonly IdentityPart[],
): Identity {
  const sum = parts.reduce((total, { count }) => total + count, 0)
  return { stage, unit, offered, parts, underWay: 0, difference: offered - sum }
}

function passed(name: string, count: number): IdentityPart {
  return { name, count, isLoss: false }
}
