import { existsSync } from 'node:fs'
import { Command } from 'commander'
import { DEFAULT_FILES, loadConfigFile } from '../config/load.ts'
import { CONTROL_SOCKET } from '../control/protocol.ts'
import { type Finding, missing, ok, weak } from '../doctor/finding.ts'
import * as kernel from '../doctor/kernel.ts'
import type { Patient } from '../doctor/patient.ts'
import * as surroundings from '../doctor/surroundings.ts'
import { escapeJson, printable } from '../health/printable.ts'
import { PID_FILE, readPidFile } from './pid-file.ts'
import { tableLines } from './table.ts'

interface DoctorOptions {
  readonly file?: string
  readonly socket: string
  readonly root: string
  readonly json?: true
}

/** `weir doctor`: what this machine lacks for a configuration, and how to mend it. */
export function doctorCommand(): Command {
  return new Command('doctor')
    .summary('tell what this machine lacks, and the command that mends it')
    .description(
      'Looks at the kernel, its modules and permissions, clocks, buffers, other programs, the configuration, and the ' +
        'ways to collectors. Each line says ok, or what is missing and the command that mends it. Works with or without a ' +
        'running agent, in any network namespace; what it finds is what the user who runs it may do. Changes nothing, ' +
        'but for modules that the kernel loads when asked for them.',
    )
    .option(
      '-f, --file <file>',
      'configuration (default: /etc/weir.conf, else /etc/hsflowd.conf, else that of the running agent)',
    )
    .option('--socket <socket>', 'control socket of the agent', CONTROL_SOCKET)
    .option('--root <folder>', 'where /proc, /sys and /run are', '/')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nExit status: 0 when the configuration can do all it asks for (some of it perhaps not as well as it could), ' +
        '1 when something is missing.',
    )
    .action(async (options: DoctorOptions) => {
      process.exitCode = await run(options)
    })
}

async function run(options: DoctorOptions): Promise<number> {
  const findings = await examine(options)
  const isWell = findings.every(({ state }) => state !== 'missing')
  process.stdout.write(
    options.json ? escapeJson(`${JSON.stringify({ ok: isWell, findings })}\n`) : format(findings),
  )
  return isWell ? 0 : 1
}

async function examine({ file, root, socket }: DoctorOptions): Promise<Finding[]> {
  const { patient, found } = await admit(file, root, socket)
  const checks: readonly ((patient: Patient) => Finding | Finding[] | Promise<Finding | Finding[]>)[] = [
    kernel.kernelVersion,
    kernel.namespace,
    kernel.capabilities,
    kernel.psample,
    kernel.tcSampling,
    kernel.dropMonitor,
    kernel.bpf,
    kernel.buffers,
    kernel.clocks,
    surroundings.agentAddress,
    surroundings.collectors,
    surroundings.doubts,
    surroundings.others,
    surroundings.runFolder,
    surroundings.runningAgent,
  ]
  const findings = [...found]
  for (const check of checks) {
    try {
      findings.push(...[await check(patient)].flat())
    } catch (error) {
      // One that cannot be made is no reason not to make the others.
      findings.push(weak(check.name, `could not be looked at: ${(error as Error).message}`, 'run it as root'))
    }
  }
  return findings
}

async function admit(
  file: string | undefined,
  root: string,
  socket: string,
): Promise<{ patient: Patient; found: Finding[] }> {
  const nothing = { config: undefined, places: new Map(), root, socket }
  try {
    const { config, places, problems, file: name } = await loadConfigFile(file ?? usualFile())
    const errors = problems.filter(({ severity }) => severity === 'error').length
    if (config === undefined) {
      const what = `${name} has ${errors} error${errors === 1 ? '' : 's'} and is refused`
      return { patient: nothing, found: [missing('configuration', what, `weir check -f ${name}`)] }
    }
    const patient = { config, places, root, socket }
    if (problems.length === 0) return { patient, found: [ok('configuration', name)] }
    const what = `${name}: ${problems.length} warning${problems.length === 1 ? '' : 's'}`
    return { patient, found: [weak('configuration', what, `weir check -f ${name}`)] }
  } catch (error) {
    const mend = 'write sFlow { collector { ip = ADDRESS } } into /etc/weir.conf, or name a file with -f'
    return { patient: nothing, found: [missing('configuration', (error as Error).message, mend)] }
  }
}

/** Where there is none of the usual files, as in a container, the one that the running agent has. */
function usualFile(): string | undefined {
  return DEFAULT_FILES.some(name => existsSync(name)) ? undefined : readPidFile(PID_FILE)?.file
}

const MARKS = { ok: 'ok', missing: 'MISSING', weak: 'weak', unused: '-' } as const

/** A line for each finding, and under it what mends it. */
function format(findings: readonly Finding[]): string {
  const rows = findings.flatMap(({ name, state, what, mend }) => {
    const lines = [[MARKS[state], printable(name, 60), printable(what, 1000)]]
    if (mend !== undefined && state !== 'unused') lines.push(['', '', `→ ${printable(mend, 1000)}`])
    return lines
  })
  const counts = (['missing', 'weak'] as const).map(
    state => findings.filter(one => one.state === state).length,
  )
  const [lacks, weaknesses] = counts as [number, number]
  const verdict =
    lacks > 0
      ? `${lacks} missing, ${weaknesses} weak`
      : weaknesses > 0
        ? `nothing is missing; ${weaknesses} could be better`
        : 'all is well'
  return `${tableLines([['', '', ''], ...rows])
    .slice(1)
    .join('\n')}\n\n${verdict}\n`
}
