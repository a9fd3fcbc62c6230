/** What the page is told, as plain JSON. Pure. */

import { History, type TrafficModel } from '../view/model.ts'
import {
  dropRows,
  FLOW_KEYS,
  type FlowSort,
  flowTable,
  type Percentiles,
  portRows,
  queueRows,
} from '../view/rows.ts'

export interface PageQuery {
  /** Name of a flow key. */
  readonly by: string
  readonly sort: FlowSort
  readonly filter: string
}

const FLOW_SORTS: readonly string[] = ['bits', 'packets', 'samples', 'name'] satisfies FlowSort[]
const MOST_FILTER = 200
const MOST_FLOWS = 15
const MOST_DROPS = 12
const MOST_QUEUES = 8
const MOST_PORTS = 24

/** Reads a query; what is not known is as if it were not there. */
export function pageQuery(parameters: URLSearchParams): PageQuery {
  const [by, sort] = [parameters.get('by') ?? '', parameters.get('sort') ?? '']
  return {
    by: FLOW_KEYS.some(key => key.name === by) ? by : FLOW_KEYS[0]!.name,
    sort: FLOW_SORTS.includes(sort) ? (sort as FlowSort) : 'bits',
    filter: (parameters.get('filter') ?? '').slice(0, MOST_FILTER),
  }
}

/** With `past`, plots have all the seconds that are known, else the last one that is over. */
export function pageSnapshot(model: TrafficModel, agent: string, query: PageQuery, past: boolean): object {
  const { nowMs, seconds } = model.clock
  const count = past ? History.SECONDS : 1
  const key = FLOW_KEYS.find(({ name }) => name === query.by)!
  const flows = flowTable(model, { key, sort: query.sort, filter: query.filter, limit: MOST_FLOWS })
  return {
    agent,
    past,
    total: {
      bits: flows.total.bitsPerSecond,
      packets: flows.total.packetsPerSecond,
      drops: model.totalDrops() / seconds,
    },
    keys: FLOW_KEYS.map(({ name, title }) => ({ name, title })),
    seconds: {
      bits: model.lastSeconds('bits', count).map(known),
      drops: model.lastSeconds('drops', count).map(known),
    },
    flows: {
      by: key.name,
      columns: key.columns,
      count: flows.count,
      rows: flows.rows.map(({ cells, bitsPerSecond, packetsPerSecond, error }) => ({
        cells,
        bits: bitsPerSecond,
        packets: packetsPerSecond,
        error,
      })),
    },
    drops: dropRows(model, 'rate', '').slice(0, MOST_DROPS),
    // In the order of their names, so that nothing jumps.
    queues: queueRows(model, 'name', '', count, nowMs - 1000)
      .slice(0, MOST_QUEUES)
      .map(({ agent: of, output, queue, delay, depth, delays, depths }) => ({
        key: `${of} ${output} ${queue}`,
        output,
        queue,
        delay: shortened(delay),
        depth: shortened(depth),
        delays: delays.map(known),
        depths: depths.map(known),
      })),
    ports: portRows(model, 'name', '', count, nowMs - 1000)
      .slice(0, MOST_PORTS)
      .map(
        ({
          agent: of,
          ifIndex,
          name,
          up,
          speed,
          inBits,
          outBits,
          utilisation,
          errors,
          discards,
          ...row
        }) => ({
          key: `${of} ${ifIndex}`,
          name,
          up,
          speed,
          inBits: known(inBits),
          outBits: known(outBits),
          utilisation: known(utilisation),
          errors,
          discards,
          ins: row.inHistory.map(known),
          outs: row.outHistory.map(known),
        }),
      ),
  }
}

function known(value: number): number | null {
  return Number.isFinite(value) ? value : null
}

function shortened(values: Percentiles | undefined): object | null {
  return values === undefined ? null : { p50: values.p50, p99: values.p99 }
}
