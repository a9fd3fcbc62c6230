import { readCmis } from './cmis.ts'
import { LOWER, type ModuleMonitors, type ReadModule } from './module.ts'
import { readSff8472 } from './sff-8472.ts'
import { readSff8636 } from './sff-8636.ts'

/** Byte 0 of every module (SFF-8024 table 4-1), and who knows the rest. */
const FAMILIES: ReadonlyMap<number, typeof readCmis> = new Map([
  [0x03, readSff8472],
  [0x0b, readSff8472],
  [0x0c, readSff8636],
  [0x0d, readSff8636],
  [0x11, readSff8636],
  // QSFP-DD, OSFP, SFP-DD, and QSFP, SFP-DD and SFP with CMIS.
  [0x18, readCmis],
  [0x19, readCmis],
  [0x1a, readCmis],
  [0x1e, readCmis],
  [0x1f, readCmis],
  [0x20, readCmis],
  [0x21, readCmis],
])

/**
 * Reads what the monitors of a module show: temperature, supply, and bias and power of each lane. Undefined when it has
 * none (copper), or is of a family that is not known.
 */
export async function readModuleMonitors(read: ReadModule): Promise<ModuleMonitors | undefined> {
  const lower = await read(LOWER)
  return FAMILIES.get(lower[0]!)?.(lower, read)
}
