import { PerformanceObserver } from 'node:perf_hooks'

/** What one measurement gives; per-item values are nanoseconds of processor time and bytes. */
export interface Measurement {
  readonly nanoseconds: number
  /** Heap growth per item while it ran; near 0 when nothing is allocated. */
  readonly heapBytes: number
  /** Garbage collections while it ran. */
  readonly collections: number
}

/**
 * Runs `work(count)` until `least` items are done, after a warm-up of a tenth of them, and tells the cost of one.
 * Needs --expose-gc: the heap is collected before, so that what it has grown by afterwards was allocated here.
 */
export async function measure(
  least: number,
  batch: number,
  work: (count: number) => void,
): Promise<Measurement> {
  for (let done = 0; done < least / 10; done += batch) work(batch)
  let collections = 0
  const observer = new PerformanceObserver(list => {
    collections += list.getEntries().length
  })
  observer.observe({ entryTypes: ['gc'] })
  globalThis.gc!()
  await new Promise(resolve => setTimeout(resolve, 20))
  collections = 0
  const heapBefore = process.memoryUsage().heapUsed
  // Of this thread alone: what else the machine does is not counted.
  const started = process.threadCpuUsage()
  let done = 0
  for (; done < least; done += batch) work(batch)
  const used = process.threadCpuUsage(started)
  const nanoseconds = ((used.user + used.system) * 1000) / done
  const heapBytes = (process.memoryUsage().heapUsed - heapBefore) / done
  await new Promise(resolve => setTimeout(resolve, 20))
  observer.disconnect()
  return { nanoseconds, heapBytes, collections }
}

/** One row of the report: what, how much, the goal and whether it is met. */
export function report(what: string, value: number, unit: string, goal?: number): void {
  const shown = value >= 100 ? value.toFixed(0) : value.toFixed(value >= 1 ? 1 : 4)
  const against = goal === undefined ? '' : `   goal ≤ ${goal} ${unit}: ${value <= goal ? 'met' : 'MISSED'}`
  console.log(`  ${what.padEnd(58)} ${shown.padStart(9)} ${unit}${against}`)
}
