/** More of a name is not looked at: structures have room for 64 bytes, and a name should be no burden before. */
const MOST_CHARACTERS = 1024

/**
 * A name as collectors and terminals may get it: each character that moves a cursor, hides or turns text is replaced by
 * `?`. The structures cut it to their length.
 */
export function cleanName(name: string): string {
  return name
    .slice(0, MOST_CHARACTERS)
    .toWellFormed()
    .replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?')
    .trim()
}
