/**
 * Files of /proc and /sys, read under a root directory: `/`, or a captured tree. Reading never happens on the main
 * thread; a reader parses the text in a pure function, and what is wrong with it is told with file and line.
 */

import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** The text of a file and the path to name in errors. */
export interface TextFile {
  readonly path: string
  readonly text: string
}

/** A kernel file that is not what it should be: `/proc/meminfo:3: MemFree: expected a whole number, got "x"`. */
export class FileFormatError extends Error {
  readonly code = 'file-format'
  readonly path: string
  /** From 1; 0 when the file as a whole is meant. */
  readonly line: number

  constructor(path: string, line: number, problem: string) {
    super(line > 0 ? `${path}:${line}: ${problem}` : `${path}: ${problem}`)
    this.name = 'FileFormatError'
    this.path = path
    this.line = line
  }
}

/** Reads a whole file. Fails with the system's own error (`code` ENOENT, EACCES, …). */
export async function readTextFile(root: string, path: string): Promise<TextFile> {
  const full = join(root, path)
  return { path: full, text: await readFile(full, 'utf8') }
}

/** Reads a file that this machine or this user may not have: undefined if it is absent or refused. */
export async function readTextFileIfAny(root: string, path: string): Promise<TextFile | undefined> {
  try {
    return await readTextFile(root, path)
  } catch (error) {
    if (UNAVAILABLE.has((error as NodeJS.ErrnoException).code ?? '')) return undefined
    throw error
  }
}

/** Reads the first `bytes` of a file that may not be there: enough of one that grows with the machine. */
export async function readHeadIfAny(
  root: string,
  path: string,
  bytes: number,
): Promise<TextFile | undefined> {
  const full = join(root, path)
  try {
    await using file = await open(full)
    const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, 0)
    return { path: full, text: buffer.toString('utf8', 0, bytesRead) }
  } catch (error) {
    if (UNAVAILABLE.has((error as NodeJS.ErrnoException).code ?? '')) return undefined
    throw error
  }
}

/** Drivers answer a read of an attribute they have no value for with one of EINVAL to EIO; ESRCH: the process has ended. */
const UNAVAILABLE = new Set(['ENOENT', 'EACCES', 'EPERM', 'EINVAL', 'ENODEV', 'EOPNOTSUPP', 'EIO', 'ESRCH'])

/** A whole number without sign, of any size. `name` is for the message. */
export function parseCounter(file: TextFile, line: number, name: string, word: string | undefined): bigint {
  if (word === undefined) throw new FileFormatError(file.path, line, `${name}: missing`)
  if (!/^\d+$/.test(word)) {
    throw new FileFormatError(file.path, line, `${name}: expected a whole number, got "${word}"`)
  }
  return BigInt(word)
}

/** The lower 32 bits: what a 32-bit counter on the wire shows of a longer one. */
export function low32(value: bigint): number {
  return Number(BigInt.asUintN(32, value))
}

/** Text as the kernel writes it into tables: space, tab, newline and backslash in octal, as `\040`. */
export function octalText(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  )
}

/** Units in which the kernel reports to user space. */
export interface KernelUnits {
  /** Bytes of a memory page. */
  readonly pageBytes: bigint
  /** USER_HZ: ticks per second of the times in /proc/stat. */
  readonly ticksPerSecond: bigint
}

/** Reads the units from the auxiliary vector that the kernel gave to this process. */
export async function readKernelUnits(root: string): Promise<KernelUnits> {
  const path = join(root, 'proc/self/auxv')
  return parseAuxiliaryVector(await readFile(path), path)
}

/**
 * Pairs of two 64-bit words, type and value, in host order, up to type AT_NULL
 * (include/uapi/linux/auxvec.h).
 */
function parseAuxiliaryVector(bytes: Uint8Array, path: string): KernelUnits {
  const AT_PAGESZ = 6n
  const AT_CLKTCK = 17n
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const values = new Map<bigint, bigint>()
  for (let at = 0; at + 16 <= bytes.length; at += 16) {
    values.set(view.getBigUint64(at, true), view.getBigUint64(at + 8, true))
  }
  const pageBytes = values.get(AT_PAGESZ)
  const ticksPerSecond = values.get(AT_CLKTCK)
  if (!pageBytes || !ticksPerSecond) {
    throw new FileFormatError(path, 0, 'expected the page size and the clock ticks (AT_PAGESZ, AT_CLKTCK)')
  }
  return { pageBytes, ticksPerSecond }
}
