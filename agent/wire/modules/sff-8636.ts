/** QSFP modules (SFF-8436, SFF-8636): monitors of four lanes in the lower half, thresholds in page 3. */
import {
  type ModuleMonitors,
  microamperes,
  microwatts,
  millivolts,
  nanometres,
  pageOf,
  type ReadModule,
  temperature,
  upper,
} from './module.ts'

const LANES = 4
const STATUS = 2
/** There is page 0 only. */
const FLAT_MEMORY = 0x04
const MONITOR = { temperature: 22, supply: 26, rxPower: 34, txBias: 42, txPower: 50 } as const
const PAGE0 = { technology: 147, wavelength: 186 } as const
/** Transmitter technologies from here on are copper cables. */
const COPPER = 0xa
const PAGE3 = { rxPowerHigh: 176, rxPowerLow: 178, txPowerHigh: 192, txPowerLow: 194 } as const

/** Undefined for a copper cable, which has no monitors. */
export async function readSff8636(lower: Uint8Array, read: ReadModule): Promise<ModuleMonitors | undefined> {
  const page0 = await read(upper(0))
  if (isCopper(pageOf(lower, page0))) return undefined
  const isFlat = (lower[STATUS]! & FLAT_MEMORY) !== 0
  return sff8636(lower, page0, isFlat ? undefined : await read(upper(3)))
}

function isCopper(page: DataView): boolean {
  return page.getUint8(PAGE0.technology) >> 4 >= COPPER
}

/** `lower` is the lower half, the others are upper halves; without page 3 the limits are 0, which is unknown. */
function sff8636(
  lower: Uint8Array,
  page0: Uint8Array,
  page3: Uint8Array | undefined,
): ModuleMonitors | undefined {
  const view = pageOf(lower, page0)
  if (isCopper(view)) return undefined
  const thresholds = page3 && pageOf(undefined, page3)
  const limit = (at: number) => (thresholds === undefined ? 0 : microwatts(thresholds.getUint16(at)))
  const wavelength = nanometres(view.getUint16(PAGE0.wavelength))
  return {
    module_num_lanes: LANES,
    module_supply_voltage: millivolts(view.getUint16(MONITOR.supply)),
    module_temperature: temperature(view.getInt16(MONITOR.temperature)),
    lanes: Array.from({ length: LANES }, (_, lane) => ({
      lane_index: lane + 1,
      tx_bias_current: microamperes(view.getUint16(MONITOR.txBias + 2 * lane)),
      tx_power: microwatts(view.getUint16(MONITOR.txPower + 2 * lane)),
      tx_power_min: limit(PAGE3.txPowerLow),
      tx_power_max: limit(PAGE3.txPowerHigh),
      tx_wavelength: wavelength,
      rx_power: microwatts(view.getUint16(MONITOR.rxPower + 2 * lane)),
      rx_power_min: limit(PAGE3.rxPowerLow),
      rx_power_max: limit(PAGE3.rxPowerHigh),
      rx_wavelength: wavelength,
    })),
  }
}
