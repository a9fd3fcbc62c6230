/** Text measured in the cells of a terminal, which are not its characters. */

/** What takes two cells: East Asian wide characters and pictures (the ranges of Unicode 15 that are in use in names). */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1f64f}\u{1f680}-\u{1f6ff}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]/u
const MARK = /\p{M}/u
const PLAIN = /^[\x20-\x7e]*$/

/** Cells that printable text takes. */
export function cellsOf(text: string): number {
  if (PLAIN.test(text)) return text.length
  let cells = 0
  for (const character of text) cells += widthOf(character)
  return cells
}

function widthOf(character: string): number {
  if (MARK.test(character)) return 0
  return WIDE.test(character) ? 2 : 1
}

/** The text in exactly `width` cells: padded at its end (or beginning), or cut and ended with `…`. */
export function fit(text: string, width: number, align: 'left' | 'right' = 'left', ellipsis = '…'): string {
  const cells = cellsOf(text)
  if (cells <= width) {
    const padding = ' '.repeat(width - cells)
    return align === 'left' ? text + padding : padding + text
  }
  if (width <= 0) return ''
  let cut = ''
  let used = 0
  for (const character of text) {
    const next = widthOf(character)
    if (used + next > width - 1) break
    cut += character
    used += next
  }
  return cut + ellipsis + ' '.repeat(width - 1 - used)
}

/** As fit(), but cut in the middle: of an address with a port both ends tell something. */
export function fitMiddle(text: string, width: number, ellipsis = '…'): string {
  if (cellsOf(text) <= width || width < 8) return fit(text, width, 'left', ellipsis)
  const characters = Array.from(text)
  const end: string[] = []
  let used = 0
  while (used < Math.floor(width / 2) && characters.length > 0) {
    const last = characters.pop()!
    end.unshift(last)
    used += cellsOf(last)
  }
  let begin = ''
  let begun = 0
  for (const character of characters) {
    if (begun + cellsOf(character) > width - used - 1) break
    begin += character
    begun += cellsOf(character)
  }
  return fit(`${begin}${ellipsis}${end.join('')}`, width, 'left', ellipsis)
}
