/**
 * The memory of pluggable modules, as bytes: which parts of it to ask for, and what the monitors in it read. Everything
 * is big-endian; offsets are those of the standards, 0 to 127 for the lower half of a page and 128 to 255 for the upper.
 */
import type { Sfp } from '../sflow/counters/interface.ts'

/** A part of a module's memory. */
export interface ModulePart {
  /** I2C address: 0x50, of an SFP also 0x51. */
  readonly address: number
  readonly bank: number
  readonly page: number
  /** From 0, or from 128 in the upper half. */
  readonly offset: number
  readonly length: number
}

/** Asks the module for a part of its memory; gives exactly as many bytes, or rejects. */
export type ReadModule = (part: ModulePart) => Promise<Uint8Array>

/** What is told of a module: the structure sfp (0:10) without the number of the module. */
export type ModuleMonitors = Omit<Sfp, 'module_id'>
export type Lane = Sfp['lanes'][number]

/** Half a page: as much as the kernel gives at a time. */
export const HALF_PAGE = 128
const MODULE_ADDRESS = 0x50

/** The lower half of page 0, which every module has. */
export const LOWER: ModulePart = {
  address: MODULE_ADDRESS,
  bank: 0,
  page: 0,
  offset: 0,
  length: HALF_PAGE,
}

/** The upper half of a page. */
export function upper(page: number, bank = 0): ModulePart {
  return { address: MODULE_ADDRESS, bank, page, offset: HALF_PAGE, length: HALF_PAGE }
}

/** Two halves as one page of 256 bytes, so that the offsets are those of the standards. */
export function pageOf(lower: Uint8Array | undefined, half: Uint8Array): DataView {
  const page = new Uint8Array(2 * HALF_PAGE)
  if (lower !== undefined) page.set(lower)
  page.set(half, HALF_PAGE)
  return new DataView(page.buffer)
}

/** From 1/256 °C, signed, to 0.001 °C. */
export function temperature(raw: number): number {
  return Math.round((raw * 1000) / 256)
}

/** From 100 µV to mV. */
export function millivolts(raw: number): number {
  return Math.round(raw / 10)
}

/** From 0.1 µW to µW. */
export function microwatts(raw: number): number {
  return Math.round(raw / 10)
}

/** From 2 µA to µA. */
export function microamperes(raw: number): number {
  return raw * 2
}

/** From 0.05 nm to nm. */
export function nanometres(raw: number): number {
  return Math.round(raw / 20)
}
