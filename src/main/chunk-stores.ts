import { ChunkStore, type LastingStore } from '../events/chunk-store.ts'
import type { ForgetLimit } from '../events/forgetting.ts'
import type { StorePart, WorkerSlot } from '../kv/batch.ts'
import type { CacheMap } from '../map/map.ts'
import type { Pool } from '../workers/pool.ts'
import type { StoreRef, Worker } from '../workers/worker.ts'

export interface ChunkStoresOptions {
  readonly map: CacheMap
  /** The map's places from here on are for stores. */
  readonly firstSlot: number
  readonly limit: number
  /** Monotonic milliseconds. */
  readonly clock: () => number
  readonly poolOf: (worker: Worker) => Pool | undefined
}

/** Each worker may have three, and pools have some of their own. */
export function storeSlots(workers: number): number {
  return 3 * workers + 64
}

/** A worker has at most one store of each kind beside its engine's own blocks. */
type Part = 'chunks' | 'shared' | 'lookedUp'

interface Made {
  readonly forget: readonly (ForgetLimit | undefined)[]
  readonly kin: () => readonly WorkerSlot[]
  readonly onOpen: (ref: StoreRef, isOpen: boolean) => void
  readonly onStored?: () => void
}

/** Gives stores their places in the map, and tells matching where they are. */
export class ChunkStores {
  readonly #o: ChunkStoresOptions
  readonly #free: number[] = []
  #next: number
  readonly #ofWorkers = new Map<Worker, Partial<Record<Part, ChunkStore>>>()
  readonly #bySlot = new Map<number, ChunkStore>()
  /** Of stores that hold what a worker told. */
  readonly #owners = new Map<number, { readonly worker: Worker; readonly part: StorePart }>()

  constructor(options: ChunkStoresOptions) {
    this.#o = options
    this.#next = options.firstSlot
  }

  /** The store of a worker, made when it is first asked for; null where all places are taken. */
  of(worker: Worker, part: Part, forget: readonly (ForgetLimit | undefined)[]): ChunkStore | null {
    const own = this.#ofWorkers.get(worker) ?? {}
    this.#ofWorkers.set(worker, own)
    const pool = this.#o.poolOf(worker)
    if (own[part] !== undefined || pool === undefined) return own[part] ?? null
    const slot = worker.slot as WorkerSlot
    const store =
      part === 'shared'
        ? this.#shared(pool, () => [slot], forget)
        : this.#make({
            forget,
            kin: () => [slot],
            onOpen: (ref, isOpen) => (worker[part] = isOpen ? ref : null),
          })
    if (store === null) return null
    own[part] = store
    if (part !== 'lookedUp') this.#owners.set(store.slot, { worker, part })
    return store
  }

  /** Whose store has this place in the map, where a snapshot may keep what it holds. */
  lastingAt(slot: number): { readonly worker: Worker; readonly part: StorePart; readonly state: LastingStore } | null {
    const owner = this.#owners.get(slot)
    const state = this.#bySlot.get(slot)?.lasting ?? null
    return owner === undefined || state === null ? null : { ...owner, state }
  }

  /** A store that no worker owns; blocks of the pool's workers may be named in it by hash alone. */
  shared(pool: Pool, forget: readonly (ForgetLimit | undefined)[]): ChunkStore | null {
    return this.#shared(pool, () => pool.workers.map(({ slot }) => slot as WorkerSlot), forget)
  }

  removeWorker(worker: Worker): void {
    for (const store of Object.values(this.#ofWorkers.get(worker) ?? {})) this.remove(store)
    this.#ofWorkers.delete(worker)
  }

  remove(store: ChunkStore): void {
    if (!this.#bySlot.delete(store.slot)) return
    store.close()
    this.#owners.delete(store.slot)
    this.#free.push(store.slot)
  }

  tend(): void {
    for (const store of this.#bySlot.values()) store.tend()
  }

  /** Of one chain some blocks may be told by one worker, some by another. */
  #shared(pool: Pool, workers: () => readonly WorkerSlot[], forget: Made['forget']): ChunkStore | null {
    const slots = (): WorkerSlot[] => pool.stores.map(({ slot }) => slot as WorkerSlot)
    return this.#make({
      forget,
      kin: () => [...workers(), ...slots()],
      onOpen: (ref, isOpen) => {
        pool.stores = [...pool.stores.filter((other) => other !== ref), ...(isOpen ? [ref] : [])]
      },
      onStored: () => {
        for (const slot of slots()) this.#bySlot.get(slot)?.adopt()
      },
    })
  }

  #make({ forget, kin, onOpen, onStored }: Made): ChunkStore | null {
    const { map, clock, firstSlot, limit } = this.#o
    const slot = this.#free.pop() ?? (this.#next < firstSlot + limit ? this.#next++ : undefined)
    if (slot === undefined) return null
    const ref = { slot, blockSize: 0 }
    const store = new ChunkStore({
      slot: slot as WorkerSlot,
      map,
      clock,
      forget,
      kin: () => kin().filter((other) => other !== slot),
      ...(onStored === undefined ? {} : { onStored }),
      onBlockSize: (tokens) => {
        ref.blockSize = tokens ?? 0
        onOpen(ref, tokens !== null)
      },
    })
    this.#bySlot.set(slot, store)
    return store
  }
}
