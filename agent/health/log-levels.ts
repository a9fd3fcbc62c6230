/** Levels by name, most to least talkative. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

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
    if (part === undefined) most = level
    else byPart.set(part, level)
  }
  return { most, byPart }
}
