/**
 * Module memories are built here from the tables of the standards (SFF-8472 rev 12.4, SFF-8636 rev 2.10a, CMIS 5.2), by
 * absolute byte addresses and with values whose meaning was computed by hand, apart from the offsets in the parsers.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import type { ModulePart, ReadModule } from '../../agent/wire/modules/module.ts'
import { readModuleMonitors } from '../../agent/wire/modules/read.ts'

/** Memory by `address/bank/page`, each 256 bytes; lower halves are those of page 0. */
type Memory = Record<string, Record<number, number | readonly number[]>>

const word = (value: number) => [(value >> 8) & 0xff, value & 0xff]
const words = (...values: readonly number[]) => values.flatMap(word)

function float(value: number): number[] {
  const view = new DataView(new ArrayBuffer(4))
  view.setFloat32(0, value)
  return [...new Uint8Array(view.buffer)]
}

/** A module, and what was asked of it. A page that it does not have is an error, as in a driver. */
function moduleOf(memory: Memory): { read: ReadModule; asked: string[] } {
  const asked: string[] = []
  const read = async ({ address, bank, page, offset, length }: ModulePart) => {
    asked.push(`${address.toString(16)}/${bank}/${page.toString(16)} ${offset}+${length}`)
    const contents = memory[`${address.toString(16)}/${bank}/${page.toString(16)}`]
    if (contents === undefined) throw new Error(`no page ${page}`)
    const bytes = new Uint8Array(256)
    for (const [at, value] of Object.entries(contents)) bytes.set([value].flat(), Number(at))
    return bytes.subarray(offset, offset + length)
  }
  return { read, asked }
}

/** 10GBASE-LR: 1310 nm, 36.5 °C, 3.3 V, 6.1 mA, -2.2 dBm sent, -5 dBm received. */
const SFP_LR: Memory = {
  '50/0/0': { 0: 0x03, 2: 0x07, 60: word(1310), 92: 0x68 },
  '51/0/0': {
    // Power sent: alarms at 2.24 mW and 0.151 mW, warnings at 1.78 mW and 0.19 mW.
    24: words(22_387, 1513, 17_783, 1905),
    // Power received.
    32: words(28_184, 275, 11_220, 347),
    96: words(0x2480, 33_000, 3050, 6026, 3162),
  },
}

/** The same by constants: every raw value is half of what it stands for, less an offset. */
const SFP_EXTERNAL: Memory = {
  '50/0/0': { 0: 0x03, 60: word(850), 92: 0x58 },
  '51/0/0': {
    24: words(11_000, 700),
    32: words(5000, 200),
    // Rx_PWR(4) to (0): 3 times the raw value plus 10.
    56: [float(0), float(0), float(0), float(3), float(10)].flat(),
    // Slope 2.0 and offset: bias +5, power sent +7, temperature -256, supply +1000.
    76: [2, 0, ...word(5), 2, 0, ...word(7), 2, 0, 0xff, 0x00, 2, 0, ...word(1000)],
    96: words(0x1000, 16_000, 1500, 3000, 1000),
  },
}

describe('SFP (SFF-8472)', () => {
  test('internal calibration: as the standard has it', async () => {
    const { read, asked } = moduleOf(SFP_LR)
    assert.deepEqual(await readModuleMonitors(read), {
      module_num_lanes: 1,
      module_supply_voltage: 3300,
      module_temperature: 36_500,
      lanes: [
        {
          lane_index: 1,
          tx_bias_current: 6100,
          tx_power: 603,
          tx_power_min: 151,
          tx_power_max: 2239,
          tx_wavelength: 1310,
          rx_power: 316,
          rx_power_min: 28,
          rx_power_max: 2818,
          rx_wavelength: 1310,
        },
      ],
    })
    assert.deepEqual(asked, ['50/0/0 0+128', '51/0/0 0+128'])
  })

  test('external calibration: slopes, offsets and the polynomial of the received power', async () => {
    const monitors = (await readModuleMonitors(moduleOf(SFP_EXTERNAL).read))!
    // 2 × 0x1000 - 0x100 = 0x1f00: 31 °C. 2 × 16000 + 1000 = 33000: 3.3 V.
    assert.equal(monitors.module_temperature, 31_000)
    assert.equal(monitors.module_supply_voltage, 3300)
    const [lane] = monitors.lanes
    assert.equal(lane!.tx_bias_current, 2 * (2 * 1500 + 5))
    assert.equal(lane!.tx_power, Math.round((2 * 3000 + 7) / 10))
    assert.equal(lane!.tx_power_min, Math.round((2 * 700 + 7) / 10))
    assert.equal(lane!.tx_power_max, Math.round((2 * 11_000 + 7) / 10))
    assert.equal(lane!.rx_power, 301)
    assert.equal(lane!.rx_power_min, 61)
    assert.equal(lane!.rx_power_max, 1501)
  })

  test('below zero', async () => {
    const cold: Memory = { ...SFP_LR, '51/0/0': { 96: word(0xf600) } }
    assert.equal((await readModuleMonitors(moduleOf(cold).read))!.module_temperature, -10_000)
  })

  test('constants that are no numbers give values that a field can carry', async () => {
    const broken: Memory = { ...SFP_EXTERNAL, '51/0/0': { 56: new Array(24).fill(0xff), 104: word(1000) } }
    const monitors = (await readModuleMonitors(moduleOf(broken).read))!
    assert.equal(monitors.lanes[0]!.rx_power, 0)
  })

  test('a copper cable has no monitors, and a wavelength is not read from a cable', async () => {
    const copper = moduleOf({ '50/0/0': { 0: 0x03, 8: 0x04, 92: 0 } })
    assert.equal(await readModuleMonitors(copper.read), undefined)
    assert.deepEqual(copper.asked, ['50/0/0 0+128'])
    const active: Memory = { '50/0/0': { 0: 0x03, 8: 0x08, 60: word(12), 92: 0x68 }, '51/0/0': {} }
    assert.equal((await readModuleMonitors(moduleOf(active).read))!.lanes[0]!.tx_wavelength, 0)
  })
})

/** 100GBASE-LR4, lanes told apart by their last digit. */
const QSFP_LR4: Memory = {
  '50/0/0': {
    0: 0x11,
    2: 0,
    22: word(0x2a40),
    26: word(32_500),
    34: words(8001, 8011, 8021, 8031),
    42: words(20_001, 20_002, 20_003, 20_004),
    50: words(11_000, 11_010, 11_020, 11_030),
    147: 0x40,
    186: word(26_040),
  },
  '50/0/3': { 176: words(35_481, 437, 28_184, 871), 192: words(45_000, 500, 35_000, 1000) },
}

describe('QSFP (SFF-8636)', () => {
  test('four lanes, limits from page 3', async () => {
    const { read, asked } = moduleOf(QSFP_LR4)
    const monitors = (await readModuleMonitors(read))!
    assert.equal(monitors.module_num_lanes, 4)
    assert.equal(monitors.module_temperature, 42_250)
    assert.equal(monitors.module_supply_voltage, 3250)
    assert.deepEqual(
      monitors.lanes.map(lane => [lane.lane_index, lane.tx_bias_current, lane.tx_power, lane.rx_power]),
      [
        [1, 40_002, 1100, 800],
        [2, 40_004, 1101, 801],
        [3, 40_006, 1102, 802],
        [4, 40_008, 1103, 803],
      ],
    )
    for (const lane of monitors.lanes) {
      const { tx_power_min, tx_power_max, rx_power_min, rx_power_max, tx_wavelength, rx_wavelength } = lane
      assert.deepEqual([tx_power_min, tx_power_max, rx_power_min, rx_power_max], [50, 4500, 44, 3548])
      assert.deepEqual([tx_wavelength, rx_wavelength], [1302, 1302])
    }
    assert.deepEqual(asked, ['50/0/0 0+128', '50/0/0 128+128', '50/0/3 128+128'])
  })

  test('flat memory: no limits, and page 3 is not asked for', async () => {
    const { '50/0/0': page0 } = QSFP_LR4
    const { read, asked } = moduleOf({ '50/0/0': { ...page0, 2: 0x04 } })
    const [lane] = (await readModuleMonitors(read))!.lanes
    assert.equal(lane!.tx_power, 1100)
    assert.deepEqual([lane!.tx_power_min, lane!.rx_power_max], [0, 0])
    assert.equal(asked.length, 2)
  })

  test('a copper cable', async () => {
    const { '50/0/0': page0 } = QSFP_LR4
    assert.equal(await readModuleMonitors(moduleOf({ '50/0/0': { ...page0, 147: 0xa0 } }).read), undefined)
  })
})

/** 400GBASE-FR4: eight lanes to the host, four of the medium. Bias in units of 4 µA. */
const QSFP_DD: Memory = {
  '50/0/0': { 0: 0x18, 1: 0x50, 2: 0, 14: word(0x3300), 16: word(33_100), 85: 2, 210: 0xf0 },
  '50/0/1': { 138: word(26_220), 142: 0, 160: 0x07 | (1 << 3) },
  '50/0/2': { 176: words(44_668, 1862), 192: words(50_119, 977) },
  '50/0/11': {
    154: words(12_000, 12_100, 12_200, 12_300, 9, 9, 9, 9),
    170: words(25_000, 25_001, 25_002, 25_003, 9, 9, 9, 9),
    186: words(10_000, 10_100, 10_200, 10_300, 9, 9, 9, 9),
  },
}

describe('QSFP-DD and OSFP (CMIS)', () => {
  test('the lanes that the medium has', async () => {
    const monitors = (await readModuleMonitors(moduleOf(QSFP_DD).read))!
    assert.equal(monitors.module_num_lanes, 4)
    assert.equal(monitors.module_temperature, 51_000)
    assert.equal(monitors.module_supply_voltage, 3310)
    assert.deepEqual(
      monitors.lanes.map(lane => [lane.lane_index, lane.tx_bias_current, lane.tx_power, lane.rx_power]),
      [
        [1, 100_000, 1200, 1000],
        [2, 100_004, 1210, 1010],
        [3, 100_008, 1220, 1020],
        [4, 100_012, 1230, 1030],
      ],
    )
    const [lane] = monitors.lanes
    assert.deepEqual(
      [lane!.tx_power_min, lane!.tx_power_max, lane!.rx_power_min, lane!.rx_power_max, lane!.tx_wavelength],
      [186, 4467, 98, 5012, 1311],
    )
  })

  test('two banks of lanes, and a monitor that the module does not have', async () => {
    const osfp: Memory = {
      '50/0/0': { 0: 0x19, 85: 1, 210: 0 },
      '50/0/1': { 142: 1, 160: 0x06 },
      '50/0/2': {},
      '50/0/11': { 154: words(1000), 170: words(777), 186: words(10) },
      '50/1/11': { 154: words(2000), 186: words(20) },
    }
    const { lanes, module_num_lanes } = (await readModuleMonitors(moduleOf(osfp).read))!
    assert.equal(module_num_lanes, 16)
    assert.deepEqual([lanes[0]!.tx_power, lanes[0]!.rx_power, lanes[0]!.tx_bias_current], [100, 1, 0])
    assert.deepEqual([lanes[8]!.lane_index, lanes[8]!.tx_power, lanes[8]!.rx_power], [9, 200, 2])
  })

  for (const [name, change] of [
    ['a copper cable', { '50/0/0': { 0: 0x18, 85: 3 } }],
    ['flat memory', { '50/0/0': { 0: 0x18, 2: 0x80 } }],
    ['no monitors of lanes', { ...QSFP_DD, '50/0/1': { 160: 0 } }],
  ] as [string, Memory][]) {
    test(`${name}: no record`, async () => {
      assert.equal(await readModuleMonitors(moduleOf(change).read), undefined)
    })
  }
})

test('a module of an unknown family is left alone after its first bytes', async () => {
  const { read, asked } = moduleOf({ '50/0/0': { 0: 0x0e } })
  assert.equal(await readModuleMonitors(read), undefined)
  assert.equal(asked.length, 1)
})

test('a module that fails half-way is an error, not half a record', async () => {
  const { '50/0/0': page0 } = QSFP_LR4
  await assert.rejects(readModuleMonitors(moduleOf({ '50/0/0': page0! }).read), /no page 3/)
})

test('whatever the bytes are, what is read can be sent', async () => {
  const { sfp } = await import('../../agent/wire/sflow/counters/interface.ts')
  const { Writer } = await import('../../agent/wire/xdr.ts')
  const halves = fc.uint8Array({ minLength: 128, maxLength: 128 })
  const id = fc.constantFrom(0x03, 0x0d, 0x11, 0x18, 0x19, 0x1e)
  await fc.assert(
    fc.asyncProperty(id, fc.array(halves, { minLength: 8, maxLength: 8 }), async (family, parts) => {
      let next = 0
      const read = async () => {
        const half = parts[next++ % parts.length]!.slice()
        if (next === 1) half[0] = family
        return half
      }
      const monitors = await readModuleMonitors(read)
      if (monitors === undefined) return
      const value = { module_id: 1, ...monitors }
      const view = new DataView(new ArrayBuffer(sfp.size(value)))
      sfp.write(new Writer(view, 0, view.byteLength), value)
    }),
  )
})
