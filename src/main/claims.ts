import type { WorkerConfig } from '../config/schema.ts'
import type { Pool } from '../workers/pool.ts'
import { workerAddress } from '../workers/worker.ts'

/** Who names engines. Each is authoritative over those that it names, and over no other's. */
export type Source = 'api' | 'config' | 'discovery'

/** Where two sources name one engine, the first of this list has it: what an operator says goes before what is found. */
const precedence: readonly Source[] = ['api', 'config', 'discovery']

/** An engine that is to be in the fleet. */
export interface Target {
  /** The worker's id without a rank. */
  readonly id: string
  readonly source: Source
  /** Null: the pool of the model that the engine says it serves. */
  readonly pool: Pool | null
  readonly given: WorkerConfig
}

/** What every source wants the fleet to be, and what comes of it together. */
export class Claims {
  readonly #claims = new Map<Source, Map<Pool | null, readonly Target[]>>(
    precedence.map((source) => [source, new Map()]),
  )

  /** Takes the place of what the source wanted for the pool before. @throws RouterError CONFIG_INVALID for a bad URL */
  put(source: Source, pool: Pool | null, desired: readonly WorkerConfig[]): void {
    const targets = desired.map((given) => ({ id: workerAddress(given.url, null).id, source, pool, given }))
    if (targets.length === 0) this.#of(source).delete(pool)
    else this.#of(source).set(pool, targets)
  }

  /** Adds one engine to what the source wants. */
  add(source: Source, pool: Pool | null, given: WorkerConfig): void {
    const before = this.#of(source).get(pool) ?? []
    this.put(source, pool, [...before.map((target) => target.given), given])
  }

  /** The source no longer wants this engine. */
  drop(source: Source, id: string): void {
    for (const [pool, targets] of this.#of(source)) {
      if (!targets.some((target) => target.id === id)) continue
      const left = targets.filter((target) => target.id !== id)
      this.put(
        source,
        pool,
        left.map(({ given }) => given),
      )
    }
  }

  /** Nobody wants anything for a pool that is no more. */
  dropPool(pool: Pool): void {
    for (const claims of this.#claims.values()) claims.delete(pool)
  }

  /** Every engine once, by its id. */
  targets(): Map<string, Target> {
    const found = new Map<string, Target>()
    for (const claims of this.#claims.values())
      for (const targets of claims.values())
        for (const target of targets) if (!found.has(target.id)) found.set(target.id, target)
    return found
  }

  #of(source: Source): Map<Pool | null, readonly Target[]> {
    const claims = this.#claims.get(source)
    if (claims === undefined) throw new RangeError(`source ${source}`)
    return claims
  }
}
