import { loadAddon } from './addon.ts'

/** NVIDIA's library by its usual name, as the loader finds it. */
const NVML_LIBRARY = 'libnvidia-ml.so.1'

/** Contracts: native/nvml/nvml.c. An error is text; undefined: no memory, or no thread, for the question. */
interface Addon {
  load(path: string): Promise<true | string> | undefined
  read(): Promise<ArrayBuffer | string> | undefined
}

/** Asks for the words of all devices; rejects when the library cannot tell. */
export type AskGpus = () => Promise<BigUint64Array>

/**
 * Loads the library, on a thread of its own, and gives a function that asks it on another. One question at a time. A
 * library that never answers leaves the promise open, and does not keep the process from ending.
 */
export async function openNvml(path = NVML_LIBRARY): Promise<AskGpus> {
  const addon = loadAddon('nvml') as Addon
  const loaded = await addon.load(path)
  if (loaded !== true) throw new Error(loaded ?? `${path}: no thread to load it`)
  return async () => {
    const answer = await addon.read()
    if (answer instanceof ArrayBuffer) return new BigUint64Array(answer)
    throw new Error(answer ?? 'no thread to ask for GPUs')
  }
}
