import type { StoreRef, Worker } from './worker.ts'

/** The workers that serve one model with one tokenizer (decision 3). */
export interface Pool {
  /** Canonical model name; part of every block key's root. */
  readonly model: string
  aliases: readonly string[]
  /** LoRA adapter names that clients may send as `model`. */
  readonly adapters: Set<string>
  readonly workers: Worker[]
  /** Stores that every worker of the pool reaches. */
  stores: readonly StoreRef[]
  /** Unix time at which the pool was formed, as /v1/models shows it. */
  readonly createdSeconds: number
  /** Largest prompt and answer together, in tokens, as the engines report it. */
  maxModelLength: number | null
}

export function newPool(model: string): Pool {
  return {
    model,
    aliases: [],
    adapters: new Set(),
    workers: [],
    stores: [],
    createdSeconds: Math.floor(Date.now() / 1000),
    maxModelLength: null,
  }
}

/**
 * Whether an engine that tells of these models serves the pool's, under its name, an alias or an adapter's. An engine that
 * tells of none is believed.
 */
export function poolServes(
  pool: Pool,
  models: readonly { readonly id: string; readonly parent: string | null }[],
): boolean {
  const isOurs = (name: string): boolean =>
    name === pool.model || pool.aliases.includes(name) || pool.adapters.has(name)
  return models.length === 0 || models.some(({ id, parent }) => isOurs(parent ?? id))
}

/** What a model name in a request stands for. */
export interface ModelTarget {
  readonly pool: Pool
  /** LoRA adapter, or null for the base model. */
  readonly adapter: string | null
}

/** All pools by every name that a client may send. */
export class Pools {
  readonly #pools: Pool[] = []
  /** True while workers are still being asked for their model, so that an unknown name may yet become known. */
  forming = false

  add(pool: Pool): void {
    this.#pools.push(pool)
  }

  /** Requests for its names are refused from now on; those that it has go on. */
  remove(pool: Pool): void {
    const at = this.#pools.indexOf(pool)
    if (at !== -1) this.#pools.splice(at, 1)
  }

  list(): readonly Pool[] {
    return this.#pools
  }

  /** Aliases resolve before the key root is made (decision 1). */
  target(model: string): ModelTarget | null {
    for (const pool of this.#pools) {
      if (pool.model === model || pool.aliases.includes(model)) return { pool, adapter: null }
      if (pool.adapters.has(model)) return { pool, adapter: model }
    }
    return this.#targetOfTwo(model)
  }

  /** SGLang's way to name an adapter: `model:adapter`. */
  #targetOfTwo(name: string): ModelTarget | null {
    for (let at = name.indexOf(':'); at !== -1; at = name.indexOf(':', at + 1)) {
      const [model, adapter] = [name.slice(0, at), name.slice(at + 1)]
      const pool = this.#pools.find((one) => one.model === model || one.aliases.includes(model))
      if (pool?.adapters.has(adapter) === true) return { pool, adapter }
    }
    return null
  }

  /** Every name that `GET /v1/models` lists, with the pool behind it. */
  names(): { name: string; pool: Pool; parent: string | null }[] {
    return this.#pools.flatMap((pool) => [
      ...[pool.model, ...pool.aliases].map((name) => ({ name, pool, parent: null })),
      ...[...pool.adapters].map((name) => ({ name, pool, parent: pool.model })),
    ])
  }
}
