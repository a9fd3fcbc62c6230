import type { Ledger, Loss } from '../health/ledger.ts'
import { cleanName } from './names.ts'
import type { Found } from './runtime.ts'
import { DataSourceIndexes } from './uuid.ts'

/**
 * Who is there: each virtual machine, container and service with its UUID and data source index, for as long as it is
 * known. One that is gone keeps its index for a while, so that it is the same data source when it comes back.
 */

export interface Entity {
  readonly runtime: string
  readonly uuid: string
  readonly index: number
  /** As it was found last. */
  found: Found
  /** Cleaned. */
  name: string
  /** When it was last among those found, monotonic milliseconds. */
  seenMs: number
  /** Whether it was found by the last search that told anything. */
  isPresent: boolean
}

export interface RegistryOptions {
  readonly ledger: Ledger
  readonly onAdded: (entity: Entity) => void
  /** It is not there any more, though its index is still kept; or it is forgotten. */
  readonly onRemoved: (entity: Entity) => void
  /** Monotonic clock, milliseconds. */
  readonly now: () => number
}

export class Registry {
  readonly #options: RegistryOptions
  readonly #indexes = new DataSourceIndexes()
  readonly #byUuid = new Map<string, Entity>()
  readonly #noIndex: Loss
  readonly #twice: Loss

  constructor(options: RegistryOptions) {
    this.#options = options
    const { ledger } = options
    this.#noIndex = ledger.loss('virtual', 'no-index', 'virtual machines, containers or services too many')
    this.#twice = ledger.loss(
      'virtual',
      'same-uuid',
      'virtual machines or containers left out because another has the same UUID',
    )
  }

  /** Those of a runtime that are there now; of all runtimes without a name. */
  present(runtime?: string): Entity[] {
    return [...this.#byUuid.values()].filter(
      entity => entity.isPresent && (runtime === undefined || entity.runtime === runtime),
    )
  }

  /** Takes what a runtime has now. */
  update(runtime: string, all: readonly Found[]): void {
    const now = this.#options.now()
    const present = new Set<string>()
    for (const found of all) {
      const { uuid } = found
      const known = this.#byUuid.get(uuid)
      if (present.has(uuid) || (known !== undefined && known.runtime !== runtime && known.isPresent)) {
        this.#twice.count++
        continue
      }
      const entity =
        known?.runtime === runtime ? Object.assign(known, { found, seenMs: now }) : this.#add(runtime, found)
      if (entity === undefined) continue
      present.add(uuid)
      entity.name = cleanName(found.name)
      if (entity.isPresent) continue
      entity.isPresent = true
      this.#options.onAdded(entity)
    }
    for (const entity of this.present(runtime)) {
      if (present.has(entity.uuid)) continue
      entity.isPresent = false
      this.#options.onRemoved(entity)
    }
  }

  /** Forgets those of a runtime that were not found for so long; also when searches fail. */
  forget(runtime: string, afterMs: number): void {
    const before = this.#options.now() - afterMs
    for (const entity of [...this.#byUuid.values()]) {
      if (entity.runtime === runtime && entity.seenMs < before) this.#remove(entity)
    }
  }

  /** The runtime is not asked any more. */
  forgetAll(runtime: string): void {
    this.forget(runtime, Number.NEGATIVE_INFINITY)
  }

  #add(runtime: string, found: Found): Entity | undefined {
    const { uuid } = found
    const known = this.#byUuid.get(uuid)
    // Another runtime had it, and does not any more.
    if (known !== undefined) this.#remove(known)
    const index = this.#indexes.take(uuid)
    if (index === undefined) {
      this.#noIndex.count++
      return undefined
    }
    const seenMs = this.#options.now()
    const entity: Entity = { runtime, uuid, index, found, name: '', seenMs, isPresent: false }
    this.#byUuid.set(uuid, entity)
    return entity
  }

  #remove(entity: Entity): void {
    this.#byUuid.delete(entity.uuid)
    this.#indexes.free(entity.index)
    if (!entity.isPresent) return
    entity.isPresent = false
    this.#options.onRemoved(entity)
  }
}
