/** Runs `weir doctor` and gives what it found, for tests here and in guests. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Finding } from '../../agent/doctor/finding.ts'
import { PROGRAM } from './program.ts'

export interface Examination {
  readonly exit: number
  readonly findings: readonly Finding[]
  /** The findings of this name. */
  of(name: string): Finding[]
}

let files = 0

/** `prefix` is a command that runs it; `settings` go inside `sFlow { }`. */
export async function examine(
  prefix: readonly string[],
  { folder, settings, args = [] }: { folder: string; settings: string; args?: readonly string[] },
): Promise<Examination> {
  const file = join(folder, `doctor-${++files}.conf`)
  writeFileSync(file, `sFlow {\n${settings}\n}\n`)
  const doctor = [process.execPath, PROGRAM, 'doctor', '--json', '-f', file, ...args]
  const [program, ...rest] = [...prefix, ...doctor]
  const { exit, out, errors } = await new Promise<{ exit: number; out: string; errors: string }>(resolve => {
    const child = execFile(program!, rest, (_, out, errors) =>
      resolve({ exit: child.exitCode!, out, errors }),
    )
  })
  assert.equal(errors, '')
  const { ok, findings } = JSON.parse(out) as { ok: boolean; findings: Finding[] }
  assert.equal(exit, ok ? 0 : 1)
  assert.equal(
    ok,
    findings.every(({ state }) => state !== 'missing'),
  )
  for (const { name, state, what, mend } of findings) {
    assert.ok(name !== '' && what !== '', 'a finding says what it is about')
    assert.ok(state === 'ok' || (mend !== undefined && mend !== ''), `${name} says how it is mended: ${what}`)
  }
  return { exit, findings, of: name => findings.filter(one => one.name === name) }
}
