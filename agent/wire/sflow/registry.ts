/** All declarations by family, enterprise and format. */

import * as applicationCounters from './counters/application.ts'
import * as environmentCounters from './counters/environment.ts'
import * as hostCounters from './counters/host.ts'
import * as interfaceCounters from './counters/interface.ts'
import * as vendorCounters from './counters/vendor.ts'
import * as virtualCounters from './counters/virtual.ts'
import * as weirCounters from './counters/weir.ts'
import * as applicationFlows from './flow/application.ts'
import * as extendedFlows from './flow/extended.ts'
import * as forwardingFlows from './flow/forwarding.ts'
import * as headerFlows from './flow/header.ts'
import * as tunnelFlows from './flow/tunnel.ts'
import {
  type CounterRecord,
  type Declaration,
  dataFormat,
  type FlowRecord,
  type SampleType,
} from './record.ts'
import * as samples from './samples.ts'

/** Declarations by data format word. Fails when two have the same number. */
export function byFormat<D extends Declaration>(declarations: Iterable<D>): ReadonlyMap<number, D> {
  const map = new Map<number, D>()
  for (const declaration of declarations) {
    const { enterprise, format, name } = declaration
    const key = dataFormat(enterprise, format)
    const other = map.get(key)
    if (other !== undefined) {
      throw new Error(`${name} has the number ${enterprise}:${format} of ${other.name}`)
    }
    map.set(key, declaration)
  }
  return map
}

export const flowRecords: ReadonlyMap<number, FlowRecord> = byFormat(
  ofFamily<FlowRecord>('flow', [headerFlows, extendedFlows, tunnelFlows, forwardingFlows, applicationFlows]),
)

export const counterRecords: ReadonlyMap<number, CounterRecord> = byFormat(
  ofFamily<CounterRecord>('counter', [
    interfaceCounters,
    hostCounters,
    virtualCounters,
    applicationCounters,
    environmentCounters,
    vendorCounters,
    weirCounters,
  ]),
)

export const sampleTypes: ReadonlyMap<number, SampleType> = byFormat(
  ofFamily<SampleType>('sample', [samples]),
)

/** The declarations of one family among everything that the modules export. */
function ofFamily<D extends Declaration>(family: D['family'], modules: readonly object[]): D[] {
  return modules
    .flatMap(module => Object.values(module) as unknown[])
    .filter(
      (value): value is D =>
        typeof value === 'object' && value !== null && 'family' in value && value.family === family,
    )
}
