import { join } from 'node:path'

/**
 * What Node.js is given to run weir: the sources here, and in guests the bundle that packages have, which an emulated
 * processor starts in half the time.
 */
export const PROGRAM = process.env.WEIR_PROGRAM ?? join(import.meta.dirname, '../../agent/main.ts')
