import { type Labels, Metrics } from '../health/openmetrics.ts'
import { printable } from '../health/printable.ts'
import type { ProcessFigures } from '../health/process-figures.ts'
import type { Status } from './status.ts'

/** The figures of a running agent as metrics. docs/metrics.md lists them. */
export function metricsOf(status: Status, figures: ProcessFigures): Metrics {
  const { agent, process, samples, collectors, sources, interfaces, drops, ledger } = status
  const metrics = new Metrics()
  const { add, one } = bound(metrics)

  add('info', 'weir', 'The agent: its version, and what collectors know it by.', [
    [{ version: agent.version, agent: agent.address ?? '', sub_agent: `${agent.subAgentId}` }, 1],
  ])
  one('gauge', 'weir_uptime_seconds', 'Time since the agent started.', agent.uptimeSeconds)
  one(
    'counter',
    'process_cpu_seconds',
    'Time of processor, user and system, of all threads.',
    process.cpuSeconds,
  )
  one('gauge', 'process_resident_memory_bytes', 'Resident memory.', process.residentBytes)
  one('gauge', 'weir_heap_bytes', 'JavaScript heap in use.', process.heapBytes)
  metrics.summary(
    'weir_event_loop_delay_seconds',
    'How late a timer that is due every second was: what the agent was busy with took so long.',
    figures.delays,
    figures.delaySeconds,
  )
  one(
    'gauge',
    'weir_event_loop_delay_max_seconds',
    'The longest of these delays.',
    figures.longestDelaySeconds,
  )
  metrics.summary(
    'weir_gc_seconds',
    'Collections of garbage.',
    figures.collections,
    figures.collectionSeconds,
  )

  add('counter', 'weir_samples', 'Samples written into datagrams, by class.', [
    [{ class: 'flows' }, samples.flows],
    [{ class: 'counters' }, samples.counters],
    [{ class: 'drops' }, samples.drops],
  ])
  one('counter', 'weir_samples_merged', 'Flow samples merged into later ones.', samples.merged)
  one('counter', 'weir_datagrams', 'Datagrams closed for collectors.', samples.datagrams)

  const ofSource = (value: (source: Status['sources'][number]) => number) =>
    sources.map(source => [{ source: source.name }, value(source)] as const)
  add(
    'counter',
    'weir_source_offered',
    'Samples or drops that a source made.',
    ofSource(({ offered }) => offered),
  )
  add(
    'counter',
    'weir_source_delivered',
    'Those of them that came.',
    ofSource(({ delivered }) => delivered),
  )
  add(
    'gauge',
    'weir_source_under_way',
    'Those of them that wait.',
    ofSource(({ underWay }) => underWay),
  )
  add(
    'gauge',
    'weir_source_state',
    'What a source does: 1 with the state that it is in.',
    sources.map(({ name, state }) => [{ source: name, state }, 1]),
  )
  add(
    'counter',
    'weir_losses',
    'What was lost, by stage and cause; see weir status for what to do.',
    ledger.losses.map(({ stage, cause, count }) => [{ stage, cause }, count]),
  )
  add(
    'gauge',
    'weir_ledger_difference',
    'What is not accounted for at a stage: 0, or there is a mistake in weir.',
    ledger.identities.map(({ stage, difference }) => [{ stage }, difference]),
  )

  const ofCollector = (value: (collector: Status['collectors'][number]) => number) =>
    collectors.map(collector => [{ collector: collector.name }, value(collector)] as const)
  add(
    'gauge',
    'weir_collector_ok',
    '1 while nothing is wrong.',
    ofCollector(({ problem }) => (problem ? 0 : 1)),
  )
  add(
    'counter',
    'weir_collector_datagrams',
    'Datagrams that the kernel took.',
    ofCollector(({ sent }) => sent),
  )
  add(
    'counter',
    'weir_collector_sent_bytes',
    'Their payload.',
    ofCollector(({ bytes }) => bytes),
  )
  add(
    'counter',
    'weir_collector_lost',
    'Datagrams not sent.',
    ofCollector(({ lost }) => lost),
  )
  add(
    'counter',
    'weir_collector_errors',
    'What the kernel refused and the network reported, by errno.',
    collectors.flatMap(({ name, errors }) =>
      Object.entries(errors).map(([error, count]) => [{ collector: name, error }, count] as const),
    ),
  )
  add(
    'gauge',
    'weir_collector_age_seconds',
    'Time since a datagram was last taken.',
    collectors.flatMap(({ name, ageSeconds }) =>
      ageSeconds === undefined ? [] : [[{ collector: name }, ageSeconds] as const],
    ),
  )

  const ofInterface = (value: (one: Status['interfaces'][number]) => number) =>
    interfaces.map(port => [{ interface: port.name, ifindex: `${port.ifIndex}` }, value(port)] as const)
  add(
    'counter',
    'weir_interface_samples',
    'Flow samples of a data source.',
    ofInterface(({ samples }) => samples),
  )
  add(
    'counter',
    'weir_interface_pool',
    'Packets they were taken from.',
    ofInterface(({ pool }) => pool),
  )
  add(
    'counter',
    'weir_interface_drops',
    'Its field drops: samples lost.',
    ofInterface(({ drops }) => drops),
  )
  add(
    'gauge',
    'weir_interface_sampling_rate',
    'N of 1 in N, where weir places the sampler.',
    interfaces.flatMap(({ name, ifIndex, rate }) =>
      rate === null ? [] : [[{ interface: name, ifindex: `${ifIndex}` }, rate] as const],
    ),
  )

  const names = new Map(interfaces.map(({ ifIndex, name }) => [ifIndex, name]))
  const rows = drops?.by ?? []
  const labels = ({ reason, ifIndex }: (typeof rows)[number]) => ({
    reason,
    interface: ifIndex === 0 ? '' : (names.get(ifIndex) ?? `${ifIndex}`),
  })
  add(
    'counter',
    'weir_drops',
    'Dropped packets seen.',
    rows.map(row => [labels(row), row.offered]),
  )
  add(
    'counter',
    'weir_drops_suppressed',
    'Those of them that were not sent because of the limit.',
    rows.map(row => [labels(row), row.suppressed]),
  )
  return metrics
}

/** Names come from outside: nothing in a label is for a terminal to obey. */
function bound(metrics: Metrics) {
  const safe = (labels: Labels) =>
    Object.fromEntries(Object.entries(labels).map(([name, value]) => [name, printable(value)]))
  return {
    add: (
      type: 'counter' | 'gauge' | 'info',
      name: string,
      help: string,
      points: readonly (readonly [Labels, number])[],
    ) =>
      metrics.add(
        type,
        name,
        help,
        points.map(([labels, value]) => [safe(labels), value] as const),
      ),
    one: metrics.one.bind(metrics),
  }
}
