import { nearest } from '../config/problem.ts'

/** Levels by name, most to least talkative. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

/** Parts of the agent, as lines of its log name them. */
export const LOG_PARTS: readonly string[] = [
  ...['bridge', 'collector', 'configuration', 'containerd', 'control', 'counters', 'docker', 'dropmon'],
  ...[
    'interfaces',
    'json',
    'k8s',
    'kvm',
    'metrics',
    'nflog',
    'nvml',
    'pcap',
    'psample',
    'samplers',
    'systemd',
    'tc',
    'tcp',
  ],
  ...['virtual', 'web'],
]

/** The least important messages to log: of most parts, and of those that have a level of their own. */
export interface LogLevels {
  readonly most: LogLevel
  readonly byPart: ReadonlyMap<string, LogLevel>
}

/** Reads `info`, `info,psample=debug` or `psample=debug`; throws with a message that names what is wrong. */
export function readLogLevels(text: string): LogLevels {
  let most: LogLevel = 'info'
  const byPart = new Map<string, LogLevel>()
  for (const [position, word] of text.split(',').entries()) {
    const [, part, name] = /^(?:([a-z][\w-]*)=)?(.*)$/.exec(word)!
    const level = LOG_LEVELS.find(one => one === name)
    if (level === undefined || (part === undefined && position > 0)) {
      throw new Error(
        `Allowed choices are ${LOG_LEVELS.join(', ')}, and after it or alone PART=LEVEL: info,psample=debug.`,
      )
    }
    if (part !== undefined && !LOG_PARTS.includes(part)) {
      const near = nearest(part, LOG_PARTS)
      const hint = near === undefined ? '.' : `; did you mean ${near}?`
      throw new Error(`There is no part '${part}'${hint} Parts are ${LOG_PARTS.join(', ')}.`)
    }
    if (part === undefined) most = level
    else byPart.set(part, level)
  }
  return { most, byPart }
}
