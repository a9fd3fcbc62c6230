/** Bytes of a keyboard as names of keys: `a`, `up`, `page-down`, `ctrl-c`. Pure. */

const SEQUENCES: Readonly<Record<string, string>> = {
  '[A': 'up',
  OA: 'up',
  '[B': 'down',
  OB: 'down',
  '[C': 'right',
  OC: 'right',
  '[D': 'left',
  OD: 'left',
  '[H': 'home',
  OH: 'home',
  '[1~': 'home',
  '[7~': 'home',
  '[F': 'end',
  OF: 'end',
  '[4~': 'end',
  '[8~': 'end',
  '[5~': 'page-up',
  '[6~': 'page-down',
  '[3~': 'delete',
  '[Z': 'shift-tab',
}

const CONTROLS: Readonly<Record<string, string>> = {
  '\r': 'enter',
  '\n': 'enter',
  '\t': 'tab',
  '\x7f': 'backspace',
  '\b': 'backspace',
}

/** The keys in what was typed. An escape sequence comes in one piece; one that is not known is passed over. */
export function keysOf(typed: string): string[] {
  const keys: string[] = []
  for (let at = 0; at < typed.length; ) {
    const character = String.fromCodePoint(typed.codePointAt(at)!)
    if (character === '\x1b') {
      const sequence = /^(?:\[[0-9;]*[A-Za-z~]|O[A-Za-z])/.exec(typed.slice(at + 1))?.[0]
      if (sequence === undefined) keys.push('escape')
      else if (SEQUENCES[sequence] !== undefined) keys.push(SEQUENCES[sequence])
      at += 1 + (sequence?.length ?? 0)
      continue
    }
    at += character.length
    const code = character.codePointAt(0)!
    if (CONTROLS[character] !== undefined) keys.push(CONTROLS[character])
    else if (code < 0x20) keys.push(`ctrl-${String.fromCharCode(code + 0x60)}`)
    else if (code < 0x7f || code > 0x9f) keys.push(character)
  }
  return keys
}
