/** Power, temperature, humidity and fans. */

import { c32, i32, u32, type ValueOf } from '../../struct.ts'
import { counterRecord } from '../record.ts'

const ENVIRONMENT = 'sFlow.org structure registry: energy and environment'

export const energy = counterRecord(0, 3000, 'energy', ENVIRONMENT, {
  voltage: u32('voltage, all ones if unknown', 'mV'),
  current: u32('current, all ones if unknown', 'mA'),
  real_power: u32('power, all ones if unknown', 'mW'),
  power_factor: i32('-10000 to 10000; -2147483647 unknown (AC), 2147483647 not applicable (DC)', '0.01 %'),
  energy: c32('energy used', 'mJ'),
  errors: c32('errors'),
})
export type Energy = ValueOf<typeof energy>

export const temperature = counterRecord(0, 3001, 'temperature', ENVIRONMENT, {
  minimum: i32('temperature of the coldest sensor', '0.1 °C'),
  maximum: i32('temperature of the hottest sensor', '0.1 °C'),
  errors: c32('errors'),
})
export type Temperature = ValueOf<typeof temperature>

export const humidity = counterRecord(0, 3002, 'humidity', ENVIRONMENT, {
  relative: i32('relative humidity', '%'),
})
export type Humidity = ValueOf<typeof humidity>

export const fans = counterRecord(0, 3003, 'fans', ENVIRONMENT, {
  total: u32('fans', 'fans'),
  failed: u32('failed fans', 'fans'),
  speed: u32('mean speed', '%'),
})
export type Fans = ValueOf<typeof fans>
