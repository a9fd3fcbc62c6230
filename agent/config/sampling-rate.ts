/** Which sampling rate holds for an interface, and which rule of the file said so. */

import type { Config } from './config.ts'

export interface EffectiveRate {
  /** 1 in N; 0 samples nothing. */
  readonly rate: number
  /** The rule in words, for example `sampling.10G = 1000 (line 12)`. */
  readonly rule: string
}

/** The parts of a Config that decide rates. */
export type RateRules = Pick<Config, 'sampling' | 'lines'>

/** Rates by speed never ask for more than one packet in this many, unless the file does. */
const LEAST_RATE_BY_SPEED = 100
const DEFAULT_BPS_RATIO = 1_000_000

/**
 * The rate of an interface. The first that applies: administratively down, 0; `sampling.<speed>` for its speed;
 * `sampling.bps_ratio` for any speed; one packet in speed / 1,000,000, at least one in 100; `sampling` when the
 * speed is not known. `speedBitsPerSecond` is 0 when unknown.
 *
 * A `polling.<speed>` setting takes no part. (With hsflowd it stands for `sampling.<speed>` at the global rate, which
 * nobody who writes it means.)
 */
export function effectiveRate(
  config: RateRules,
  port: { readonly speedBitsPerSecond: number; readonly adminUp: boolean },
): EffectiveRate {
  const { rate, bySpeed, bpsRatio } = config.sampling
  const speed = port.speedBitsPerSecond
  if (!port.adminUp) return { rate: 0, rule: 'the interface is administratively down' }
  if (!(speed > 0)) return { rate, rule: `speed not known, ${rule(config, 'sampling', rate)}` }
  const name = speedName(speed)
  const exact = bySpeed.get(name)
  if (exact !== undefined) return { rate: exact, rule: rule(config, `sampling.${name}`, exact) }
  if (bpsRatio === 0) {
    return { rate, rule: `${rule(config, 'sampling.bps_ratio', 0)}, ${rule(config, 'sampling', rate)}` }
  }
  if (bpsRatio !== undefined) {
    return {
      rate: Math.max(1, Math.floor(speed / bpsRatio)),
      rule: `speed ${name} / ${rule(config, 'sampling.bps_ratio', bpsRatio)}`,
    }
  }
  const bySize = Math.floor(speed / DEFAULT_BPS_RATIO)
  return bySize >= LEAST_RATE_BY_SPEED
    ? { rate: bySize, rule: `speed ${name} / 1,000,000` }
    : { rate: LEAST_RATE_BY_SPEED, rule: `speed ${name}: at least ${LEAST_RATE_BY_SPEED}` }
}

/** What the speed makes of `sampling` where the file says nothing of speeds; undefined where that is the rate itself. */
export function overridingRate(
  config: RateRules,
  { speedBitsPerSecond }: { readonly speedBitsPerSecond: number },
): EffectiveRate | undefined {
  const { rate, bySpeed, bpsRatio } = config.sampling
  if (bpsRatio !== undefined || bySpeed.has(speedName(speedBitsPerSecond))) return undefined
  const effective = effectiveRate(config, { speedBitsPerSecond, adminUp: true })
  return effective.rate === rate ? undefined : effective
}

/**
 * The name of a speed in `sampling.<speed>`: bit/s with the last 12, 9, 6 or 3 digits replaced by T, G, M or K.
 * What is cut off does not count: 2.5 Gb/s is `2G`.
 */
export function speedName(bitsPerSecond: number): string {
  for (const [digits, letter] of [
    [12, 'T'],
    [9, 'G'],
    [6, 'M'],
    [3, 'K'],
  ] as const) {
    if (bitsPerSecond >= 10 ** digits) return `${Math.floor(bitsPerSecond / 10 ** digits)}${letter}`
  }
  return String(Math.floor(bitsPerSecond))
}

function rule(config: RateRules, name: string, value: number): string {
  const line = config.lines.get(name)
  const origin = line === undefined ? 'default' : line === 0 ? 'DNS' : `line ${line}`
  return `${name} = ${value} (${origin})`
}
