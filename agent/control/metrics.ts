import { type Labels, labelled, Metrics } from '../health/openmetrics.ts'
import type { ProcessFigures } from '../health/process-figures.ts'
import type { Status } from './status.ts'

/** The figures of a running agent as metrics. docs/metrics.md lists them. */
export function metricsOf(status: Status, figures: ProcessFigures): Metrics {
  const { agent, process, samples, collectors, sources, interfaces, drops, ledger } = status
  const metrics = new Metrics()
  const add = metrics.add.bind(metrics)
  const one = metrics.one.bind(metrics)

  add('info', 'weir', 'The agent: its version, and what collectors know it by.', [
    [labelled({ version: agent.version, agent: agent.address ?? '', sub_agent: `${agent.subAgentId}` }), 1],
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
    [labelled({ class: 'flows' }), samples.flows],
    [labelled({ class: 'counters' }), samples.counters],
    [labelled({ class: 'drops' }), samples.drops],
  ])
  one('counter', 'weir_samples_merged', 'Flow samples merged into later ones.', samples.merged)
  one('counter', 'weir_datagrams', 'Datagrams closed for collectors.', samples.datagrams)

  const ofSource = labelledBy(sources, ({ name }) => ({ source: name }))
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
    sources.map(({ name, state }) => [labelled({ source: name, state }), 1]),
  )
  add(
    'counter',
    'weir_losses',
    'What was lost, by stage and cause; see weir status for what to do.',
    ledger.losses.map(({ stage, cause, count }) => [labelled({ stage, cause }), count]),
  )
  add(
    'gauge',
    'weir_ledger_difference',
    'What is not accounted for at a stage: 0, or there is a mistake in weir.',
    ledger.identities.map(({ stage, difference }) => [labelled({ stage }), difference]),
  )

  const ofCollector = labelledBy(collectors, ({ name }) => ({ collector: name }))
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
      Object.entries(errors).map(([error, count]) => [labelled({ collector: name, error }), count] as const),
    ),
  )
  add(
    'gauge',
    'weir_collector_age_seconds',
    'Time since a datagram was last taken.',
    ofCollector(({ ageSeconds }) => ageSeconds),
  )

  const ofInterface = labelledBy(interfaces, ({ name, ifIndex }) => ({
    interface: name,
    ifindex: `${ifIndex}`,
  }))
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
    ofInterface(({ rate }) => rate ?? undefined),
  )

  const names = new Map(interfaces.map(({ ifIndex, name }) => [ifIndex, name]))
  const rows = drops?.by ?? []
  const ofDrops = labelledBy(rows, ({ reason, ifIndex }) => ({
    reason,
    interface: ifIndex === 0 ? '' : (names.get(ifIndex) ?? `${ifIndex}`),
  }))
  add('counter', 'weir_drops', 'Dropped packets seen.', summed(ofDrops(({ offered }) => offered)))
  add(
    'counter',
    'weir_drops_suppressed',
    'Those of them that were not sent because of the limit.',
    summed(ofDrops(({ suppressed }) => suppressed)),
  )
  return metrics
}

/** For several families of the same things: a point for each thing that has a value. */
function labelledBy<T>(things: readonly T[], labelsOf: (thing: T) => Readonly<Record<string, string>>) {
  const all = things.map(thing => ({ thing, labels: labelled(labelsOf(thing)) }))
  return (valueFrom: (thing: T) => number | undefined): [Labels, number][] => {
    const points: [Labels, number][] = []
    for (const { thing, labels } of all) {
      const value = valueFrom(thing)
      if (value !== undefined) points.push([labels, value])
    }
    return points
  }
}

/** One point for all that have the same labels, as kinds of drops that are shown alike. */
function summed(points: readonly [Labels, number][]): [Labels, number][] {
  const byText = new Map<string, [Labels, number]>()
  for (const [labels, value] of points) {
    byText.set(labels.text, [labels, (byText.get(labels.text)?.[1] ?? 0) + value])
  }
  return [...byText.values()]
}
