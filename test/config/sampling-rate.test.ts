import assert from 'node:assert/strict'
import { test } from 'node:test'
import { loadConfig } from '../../agent/config/load.ts'
import { effectiveRate, speedName } from '../../agent/config/sampling-rate.ts'

function configOf(settings: string) {
  const { config, problems } = loadConfig(
    `sFlow {\n${settings}\ncollector { ip = 192.0.2.1 }\n}`,
    'test.conf',
  )
  assert.ok(config, JSON.stringify(problems))
  return config
}

const G = 1e9
const rows: [name: string, settings: string, speed: number, adminUp: boolean, rate: number, rule: string][] =
  [
    ['down', 'sampling.10G = 5', 10 * G, false, 0, 'the interface is administratively down'],
    ['speed has its own rate', 'sampling.10G = 1000', 10 * G, true, 1000, 'sampling.10G = 1000 (line 2)'],
    ['rate 0 for a speed', 'sampling.10G = 0', 10 * G, true, 0, 'sampling.10G = 0 (line 2)'],
    ['another speed has not', 'sampling.10G = 1000', 25 * G, true, 25_000, 'speed 25G / 1,000,000'],
    ['2.5 Gb/s is named 2G', 'sampling.2G = 7', 2.5 * G, true, 7, 'sampling.2G = 7 (line 2)'],
    [
      'own rate before the ratio',
      'sampling.bps_ratio=1000\nsampling.1G=9',
      G,
      true,
      9,
      'sampling.1G = 9 (line 3)',
    ],
    [
      'ratio',
      'sampling.bps_ratio = 2M',
      10 * G,
      true,
      5000,
      'speed 10G / sampling.bps_ratio = 2000000 (line 2)',
    ],
    [
      'ratio, rounded down',
      'sampling.bps_ratio = 3',
      10,
      true,
      3,
      'speed 10 / sampling.bps_ratio = 3 (line 2)',
    ],
    [
      'ratio, at least 1',
      'sampling.bps_ratio = 10M',
      1e6,
      true,
      1,
      'speed 1M / sampling.bps_ratio = 10000000 (line 2)',
    ],
    [
      'ratio 0 takes the global rate',
      'sampling = 77\nsampling.bps_ratio = 0',
      10 * G,
      true,
      77,
      'sampling.bps_ratio = 0 (line 3), sampling = 77 (line 2)',
    ],
    ['by speed, 1G', 'sampling = 77', G, true, 1000, 'speed 1G / 1,000,000'],
    ['by speed, 100G', '', 100 * G, true, 100_000, 'speed 100G / 1,000,000'],
    ['by speed, 100M is the least', '', 1e8, true, 100, 'speed 100M / 1,000,000'],
    ['by speed, at least 100', '', 1e7, true, 100, 'speed 10M: at least 100'],
    ['unknown speed', 'sampling = 77', 0, true, 77, 'speed not known, sampling = 77 (line 2)'],
    ['unknown speed, nothing set', '', 0, true, 400, 'speed not known, sampling = 400 (default)'],
    [
      'a polling setting of that speed changes nothing',
      'polling.10G = 20',
      10 * G,
      true,
      10_000,
      'speed 10G / 1,000,000',
    ],
  ]
for (const [name, settings, speedBitsPerSecond, adminUp, rate, rule] of rows) {
  test(`sampling rate: ${name}`, () => {
    assert.deepEqual(effectiveRate(configOf(settings), { speedBitsPerSecond, adminUp }), { rate, rule })
  })
}

test('names of speeds', () => {
  const names: [number, string][] = [
    [0, '0'],
    [999, '999'],
    [1000, '1K'],
    [9600, '9K'],
    [1e6, '1M'],
    [1e8, '100M'],
    [2.5e9, '2G'],
    [1e11, '100G'],
    [999_999_999_999, '999G'],
    [1.6e12, '1T'],
  ]
  for (const [speed, name] of names) assert.equal(speedName(speed), name)
})
