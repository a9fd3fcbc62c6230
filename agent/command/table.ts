/** Tables as commands print them. */

/**
 * Lines with each column as wide as its widest cell. The first row is the heading: a cell of it that begins with `>`
 * aligns its column to the right.
 */
export function tableLines(rows: readonly (readonly string[])[]): string[] {
  const [heading = [], ...body] = rows
  const right = heading.map(cell => cell.startsWith('>'))
  const cells = [heading.map(cell => cell.replace(/^>/, '')), ...body]
  const widths = right.map((_, column) => Math.max(...cells.map(row => row[column]?.length ?? 0)))
  return cells.map(row =>
    row
      .map((cell, i) => (right[i] ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd(),
  )
}
