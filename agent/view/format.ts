/** Numbers and plots as short text. Pure. */

const PREFIXES = ['', 'k', 'M', 'G', 'T', 'P', 'E']

/** Three significant digits and a decimal prefix: `950`, `1.23 k`, `45.6 G`. Unknown is `-`. */
function scaled(value: number): { digits: string; prefix: string } {
  if (!Number.isFinite(value)) return { digits: '-', prefix: '' }
  let rest = Math.abs(value)
  let step = 0
  // 999.5 would be rounded to 1000.
  while (rest >= 999.5 && step < PREFIXES.length - 1) {
    rest /= 1000
    step++
  }
  const decimals = rest >= 99.95 || (step === 0 && Number.isInteger(rest)) ? 0 : rest >= 9.995 ? 1 : 2
  return { digits: (value < 0 ? '-' : '') + rest.toFixed(decimals), prefix: PREFIXES[step]! }
}

/** `12.3 Mb/s` */
export function bitRate(bitsPerSecond: number): string {
  const { digits, prefix } = scaled(bitsPerSecond)
  return digits === '-' ? '-' : `${digits} ${prefix}b/s`
}

/** `1.23 k/s`, or with another unit `1.23 k pkt/s`. */
export function rate(perSecond: number, unit = '/s'): string {
  const { digits, prefix } = scaled(perSecond)
  if (digits === '-') return '-'
  return `${digits}${prefix === '' ? '' : ` ${prefix}`}${unit === '/s' ? '' : ' '}${unit}`
}

/** `123`, `4.56 M` */
export function count(value: number): string {
  if (Number.isInteger(value) && Math.abs(value) < 100_000) return String(value)
  const { digits, prefix } = scaled(value)
  return prefix === '' ? digits : `${digits} ${prefix}`
}

/** `1.23 MB` */
export function bytes(value: number): string {
  const { digits, prefix } = scaled(value)
  return digits === '-' ? '-' : `${digits} ${prefix}B`
}

/** Nanoseconds as `840 ns`, `12.3 µs`, `4.56 ms`, `1.20 s`. */
export function nanoseconds(value: number): string {
  if (!Number.isFinite(value)) return '-'
  const UNITS = ['ns', 'µs', 'ms', 's']
  let rest = value
  let step = 0
  while (rest >= 999.5 && step < UNITS.length - 1) {
    rest /= 1000
    step++
  }
  const decimals = step === 0 || rest >= 99.95 ? 0 : rest >= 9.995 ? 1 : 2
  return `${rest.toFixed(decimals)} ${UNITS[step]}`
}

/** `±4.5 %` for a part; beyond 100 % nothing is known. */
export function error(part: number): string {
  if (!(part < 1)) return '±100 %'
  return `±${part < 0.0995 ? (part * 100).toFixed(1) : (part * 100).toFixed(0)} %`
}

export function percent(part: number): string {
  if (!Number.isFinite(part)) return '-'
  return `${part < 0.0995 ? (part * 100).toFixed(1) : (part * 100).toFixed(0)} %`
}

/** `now`, `12 s`, `3 min`, `4 h`, `5 d` */
export function age(seconds: number): string {
  if (seconds < 1) return 'now'
  if (seconds < 120) return `${Math.floor(seconds)} s`
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`
}

const LEVELS = ' ▁▂▃▄▅▆▇█'
const ASCII_LEVELS = ' ._-=+*#@'

/**
 * A line of one character for each value, from 0 to the greatest; what is not known is a blank, and what is there is at
 * least the lowest mark.
 */
export function sparkLine(
  values: readonly number[],
  unicode: boolean,
  greatest = greatestOf(values),
): string {
  const levels = unicode ? LEVELS : ASCII_LEVELS
  const most = levels.length - 1
  return values
    .map(value => {
      if (!Number.isFinite(value) || value <= 0 || greatest <= 0) return value === 0 ? levels[1] : levels[0]
      return levels[Math.min(Math.max(Math.ceil((value / greatest) * most), 1), most)]
    })
    .join('')
}

/** The greatest of the values that are known, at least 0. */
export function greatestOf(values: readonly number[]): number {
  return values.reduce((most, value) => (Number.isNaN(value) ? most : Math.max(value, most)), 0)
}

const EIGHTHS = '▏▎▍▌▋▊▉█'

/** A bar of at most `width` characters for a part of 1, to an eighth of a character. */
export function bar(part: number, width: number, unicode: boolean): string {
  const filled = Math.min(Math.max(Number.isFinite(part) ? part : 0, 0), 1) * width
  if (!unicode) return '#'.repeat(Math.round(filled)).padEnd(width)
  const whole = Math.floor(filled)
  const rest = Math.floor((filled - whole) * 8)
  const text = '█'.repeat(whole) + (rest > 0 ? EIGHTHS[rest - 1] : '')
  return text.padEnd(width)
}
