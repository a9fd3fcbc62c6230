/**
 * SFP modules (SFF-8472): identification at I2C address 0x50 (A0h), and at 0x51 (A2h) thresholds, calibration and
 * monitors of the one lane.
 */
import {
  HALF_PAGE,
  type ModuleMonitors,
  type ModulePart,
  microamperes,
  microwatts,
  millivolts,
  type ReadModule,
  temperature,
} from './module.ts'

const IDENTIFICATION = { cable: 8, wavelength: 60, monitoring: 92 } as const
const CABLE = { passive: 0x04, active: 0x08 } as const
const MONITORING = { implemented: 0x40, external: 0x10 } as const

const TX_POWER = { highAlarm: 24, lowAlarm: 26 } as const
const RX_POWER = { highAlarm: 32, lowAlarm: 34 } as const
/** Slope (u16 / 256) and offset (i16) of what is linear; the polynomial of the received power, from the fourth power down. */
const CALIBRATION = { rxPower: 56, txBias: 76, txPower: 80, temperature: 84, supply: 88 } as const
const MONITOR = { temperature: 96, supply: 98, txBias: 100, txPower: 102, rxPower: 104 } as const

const DIAGNOSTICS: ModulePart = { address: 0x51, bank: 0, page: 0, offset: 0, length: HALF_PAGE }

/** Undefined when the module has no monitors: copper cables and BASE-T. */
export async function readSff8472(lower: Uint8Array, read: ReadModule): Promise<ModuleMonitors | undefined> {
  if (!hasMonitors(lower)) return undefined
  return sff8472(lower, await read(DIAGNOSTICS))
}

function hasMonitors(identification: Uint8Array): boolean {
  return (identification[IDENTIFICATION.monitoring]! & MONITORING.implemented) !== 0
}

/** `identification` and `diagnostics` are the lower halves (128 bytes) at A0h and A2h. */
function sff8472(identification: Uint8Array, diagnostics: Uint8Array): ModuleMonitors | undefined {
  if (!hasMonitors(identification)) return undefined
  const view = new DataView(diagnostics.buffer, diagnostics.byteOffset, diagnostics.length)
  const isExternal = (identification[IDENTIFICATION.monitoring]! & MONITORING.external) !== 0
  const linear = (raw: number, constants: number) =>
    isExternal ? (raw * view.getUint16(constants)) / 256 + view.getInt16(constants + 2) : raw
  const received = (raw: number) => (isExternal ? receivedPower(view, raw) : raw)
  const txPower = (at: number) => unsigned(microwatts(linear(view.getUint16(at), CALIBRATION.txPower)))
  const rxPower = (at: number) => unsigned(microwatts(received(view.getUint16(at))))
  const wavelength = wavelengthOf(identification)
  return {
    module_num_lanes: 1,
    module_supply_voltage: unsigned(millivolts(linear(view.getUint16(MONITOR.supply), CALIBRATION.supply))),
    module_temperature: temperature(linear(view.getInt16(MONITOR.temperature), CALIBRATION.temperature)),
    lanes: [
      {
        lane_index: 1,
        tx_bias_current: unsigned(
          Math.round(microamperes(linear(view.getUint16(MONITOR.txBias), CALIBRATION.txBias))),
        ),
        tx_power: txPower(MONITOR.txPower),
        tx_power_min: txPower(TX_POWER.lowAlarm),
        tx_power_max: txPower(TX_POWER.highAlarm),
        tx_wavelength: wavelength,
        rx_power: rxPower(MONITOR.rxPower),
        rx_power_min: rxPower(RX_POWER.lowAlarm),
        rx_power_max: rxPower(RX_POWER.highAlarm),
        rx_wavelength: wavelength,
      },
    ],
  }
}

/** nm; of cables these bytes say something else. */
function wavelengthOf(identification: Uint8Array): number {
  const isCable = (identification[IDENTIFICATION.cable]! & (CABLE.passive | CABLE.active)) !== 0
  if (isCable) return 0
  return identification[IDENTIFICATION.wavelength]! * 256 + identification[IDENTIFICATION.wavelength + 1]!
}

/** Table 9-6: the sum of five coefficients times the powers of what was measured. */
function receivedPower(view: DataView, raw: number): number {
  let power = 0
  for (let i = 0; i <= 4; i++) power = power * raw + view.getFloat32(CALIBRATION.rxPower + 4 * i)
  return power
}

/** What a 32-bit field can carry, whatever the constants made of it. */
function unsigned(value: number): number {
  return Number.isFinite(value) ? Math.min(Math.max(value, 0), 0xffff_ffff) : 0
}
