import { ledgerOf } from '../control/ledger.ts'
import type { Question, Wanted } from '../control/protocol.ts'
import { ControlServer } from '../control/server.ts'
import { interfacesOf, type Observed, sourcesOf, statusOf } from '../control/status.ts'
import type { OpenTap } from '../control/stream.ts'
import type { Exporter } from '../export/exporter.ts'
import type { TapFilter } from '../export/tap.ts'
import type { Logger } from '../health/log.ts'
import type { Interface } from '../interfaces.ts'

/** The wiring of the control socket: what is answered to which question, and where streams of samples come from. */

export interface ControlSocketOptions {
  readonly path: string
  readonly group: string | undefined
  readonly log: Logger
  readonly exporter: Exporter
  readonly interfaces: ReadonlyMap<number, Interface>
  /** Before, questions wait for their answer. */
  readonly started: Promise<void>
  readonly observe: () => Observed
}

export function controlSocket(options: ControlSocketOptions): ControlServer {
  const { path, group, log, exporter, interfaces, started, observe } = options
  const answers: Record<Question, (observed: Observed) => unknown> = {
    status: statusOf,
    ledger: ledgerOf,
    interfaces: interfacesOf,
    sources: sourcesOf,
    collectors: ({ collectors }) => collectors,
    drops: ({ drops }) => drops ?? null,
  }
  return new ControlServer({
    path,
    group,
    log,
    answer: question => started.then(() => answers[question](observe())),
    openTap: (wanted, sink): OpenTap => {
      const { tap, end } = exporter.tap(filterOf(wanted, interfaces), sink)
      return { counts: tap, change: other => tap.change(filterOf(other, interfaces)), end }
    },
  })
}

/** Names stand for the interfaces that have them now. */
function filterOf(wanted: Wanted, known: ReadonlyMap<number, Interface>): TapFilter {
  const { send, interfaces, every, perSecond } = wanted
  return {
    classes: send,
    interfaces: interfaces && indexesOf(interfaces, known),
    every,
    perSecond: perSecond === 0 ? Number.POSITIVE_INFINITY : perSecond,
  }
}

function indexesOf(wanted: readonly (string | number)[], known: ReadonlyMap<number, Interface>): Set<number> {
  const indexes = new Set(wanted.filter(one => typeof one === 'number'))
  const names = new Set(wanted.filter(one => typeof one === 'string'))
  if (names.size === 0) return indexes
  for (const { name, ifIndex } of known.values()) if (names.has(name)) indexes.add(ifIndex)
  return indexes
}
