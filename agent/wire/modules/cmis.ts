/**
 * Modules of the Common Management Interface Specification (CMIS 4 and 5): QSFP-DD, OSFP, and newer QSFP and SFP-DD. The
 * monitors of eight lanes each are in page 11h of a bank.
 */
import {
  type Lane,
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

const LANES_PER_BANK = 8
const STATUS = 2
/** There is page 0 only. */
const FLAT_MEMORY = 0x80
const MONITOR = { temperature: 14, supply: 16 } as const
const MEDIA_TYPE = 85
const PASSIVE_COPPER = 3
/** Page 0: a bit for each lane of the medium that the module does not have. */
const LANES_ABSENT = 210
/** Page 1. */
const WAVELENGTH = 138
const BANKS = 142
const LANE_MONITORS = 160
const MONITORS = { txBias: 0x01, txPower: 0x02, rxPower: 0x04 } as const
/** Page 2. */
const THRESHOLD = { txPowerHigh: 176, txPowerLow: 178, rxPowerHigh: 192, rxPowerLow: 194 } as const
/** Page 11h, eight lanes each. */
const LANE = { txPower: 154, txBias: 170, rxPower: 186 } as const

/** The upper halves of the pages that tell of the monitors. */
export interface CmisPages {
  readonly page0: Uint8Array
  readonly page1: Uint8Array
  readonly page2: Uint8Array
  /** Page 11h of each bank. */
  readonly lanes: readonly Uint8Array[]
}

/** Undefined for a module without monitors of its lanes, such as a copper cable. */
export async function readCmis(lower: Uint8Array, read: ReadModule): Promise<ModuleMonitors | undefined> {
  const isFlat = (lower[STATUS]! & FLAT_MEMORY) !== 0
  if (isFlat || lower[MEDIA_TYPE] === PASSIVE_COPPER) return undefined
  const page1 = await read(upper(1))
  if (laneMonitors(page1) === 0) return undefined
  const page0 = await read(upper(0))
  const page2 = await read(upper(2))
  const lanes: Uint8Array[] = []
  for (let bank = 0; bank < banks(page1); bank++) lanes.push(await read(upper(0x11, bank)))
  return cmis(lower, { page0, page1, page2, lanes })
}

function laneMonitors(page1: Uint8Array): number {
  const { txBias, txPower, rxPower } = MONITORS
  return pageOf(undefined, page1).getUint8(LANE_MONITORS) & (txBias | txPower | rxPower)
}

/** 1, 2 or 4. */
function banks(page1: Uint8Array): number {
  return 2 ** Math.min(pageOf(undefined, page1).getUint8(BANKS) & 0x03, 2)
}

/** `lower` is the lower half. A monitor that the module does not have reads 0. */
export function cmis(lower: Uint8Array, pages: CmisPages): ModuleMonitors {
  const view = pageOf(lower, pages.page0)
  const page1 = pageOf(undefined, pages.page1)
  const thresholds = pageOf(undefined, pages.page2)
  const monitors = page1.getUint8(LANE_MONITORS)
  const biasScale = 2 ** Math.min((monitors >> 3) & 0x03, 2)
  const absent = view.getUint8(LANES_ABSENT)
  const wavelength = nanometres(page1.getUint16(WAVELENGTH))
  const limit = (at: number, monitor: number) =>
    (monitors & monitor) === 0 ? 0 : microwatts(thresholds.getUint16(at))
  const lanes: Lane[] = []
  for (const [bank, half] of pages.lanes.entries()) {
    const page = pageOf(undefined, half)
    for (let lane = 0; lane < LANES_PER_BANK; lane++) {
      // The bits of absent lanes are about the first bank only.
      if (bank === 0 && (absent & (1 << lane)) !== 0) continue
      const value = (at: number, monitor: number) =>
        (monitors & monitor) === 0 ? 0 : page.getUint16(at + 2 * lane)
      lanes.push({
        lane_index: bank * LANES_PER_BANK + lane + 1,
        tx_bias_current: microamperes(value(LANE.txBias, MONITORS.txBias)) * biasScale,
        tx_power: microwatts(value(LANE.txPower, MONITORS.txPower)),
        tx_power_min: limit(THRESHOLD.txPowerLow, MONITORS.txPower),
        tx_power_max: limit(THRESHOLD.txPowerHigh, MONITORS.txPower),
        tx_wavelength: wavelength,
        rx_power: microwatts(value(LANE.rxPower, MONITORS.rxPower)),
        rx_power_min: limit(THRESHOLD.rxPowerLow, MONITORS.rxPower),
        rx_power_max: limit(THRESHOLD.rxPowerHigh, MONITORS.rxPower),
        rx_wavelength: wavelength,
      })
    }
  }
  return {
    module_num_lanes: lanes.length,
    module_supply_voltage: millivolts(view.getUint16(MONITOR.supply)),
    module_temperature: temperature(view.getInt16(MONITOR.temperature)),
    lanes,
  }
}
