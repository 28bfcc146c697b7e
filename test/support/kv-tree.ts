import type { KvBatch, KvEvent, KvParent, WorkerSlot } from '../../src/kv/batch.ts'
import { chainKeys } from '../../src/kv/keys.ts'
import type { PrefixMatch } from '../../src/map/map.ts'
import { randomWords } from './random.ts'

export const slotOf = (slot: number): WorkerSlot => slot as WorkerSlot

/** Blocks that hang from one root: what an engine could cache of a few prompts. Block i's parent is before it, or -1. */
export class KvTree {
  readonly root: readonly [number, number]
  readonly parents: number[] = []
  readonly hashes: (readonly [number, number])[] = []
  readonly locals: (readonly [number, number])[] = []
  readonly keys: (readonly [number, number])[] = []
  readonly #next: () => number

  constructor(seed: number) {
    this.#next = randomWords(seed)
    this.root = [this.#next(), this.#next()]
  }

  /** Adds a block and returns its number. */
  grow(parent: number): number {
    const local = [this.#next(), this.#next()] as const
    const [low, high] = parent < 0 ? this.root : this.keys[parent]!
    const key = new Uint32Array(2)
    chainKeys(low, high, Uint32Array.from(local), key)
    this.parents.push(parent)
    this.hashes.push([this.#next(), this.#next()])
    this.locals.push(local)
    this.keys.push([key[0]!, key[1]!])
    return this.parents.length - 1
  }

  /** Adds a chain of blocks under a parent and returns their numbers. */
  growChain(blocks: number, parent = -1): number[] {
    const chain: number[] = []
    for (let last = parent; chain.length < blocks; chain.push(last)) last = this.grow(last)
    return chain
  }

  /** From the root's child down to a block. */
  pathTo(block: number): number[] {
    const path: number[] = []
    for (let at = block; at >= 0; at = this.parents[at]!) path.unshift(at)
    return path
  }

  keysOf(path: readonly number[]): Uint32Array {
    return Uint32Array.from(path.flatMap((block) => [...this.keys[block]!]))
  }

  hashesOf(path: readonly number[], alternative = 0): Uint32Array {
    return Uint32Array.from(path.flatMap((block) => [this.hashes[block]![0] ^ alternative, this.hashes[block]![1]]))
  }

  parentOf(block: number): KvParent {
    const parent = this.parents[block]!
    if (parent < 0) return { kind: 'root', keyLow: this.root[0], keyHigh: this.root[1] }
    return { kind: 'block', hashLow: this.hashes[parent]![0], hashHigh: this.hashes[parent]![1] }
  }

  /** The store of a run of blocks, each the parent of the next. `alternative` gives the blocks other engine hashes. */
  store(path: readonly number[], { tier = 0, group = 0, alternative = 0 } = {}): KvEvent {
    return {
      kind: 'store',
      tier,
      group,
      engineHashes: this.hashesOf(path, alternative),
      locals: Uint32Array.from(path.flatMap((block) => [...this.locals[block]!])),
      parent: this.parentOf(path[0]!),
    }
  }

  /** The same blocks, named by hash alone. */
  present(blocks: readonly number[], { tier = 0, group = 0, alternative = 0 } = {}): KvEvent {
    return { kind: 'present', tier, group, engineHashes: this.hashesOf(blocks, alternative) }
  }

  /** A tier of null is every tier. */
  remove(
    blocks: readonly number[],
    { tier = 0, group = 0, alternative = 0 }: { tier?: number | null; group?: number; alternative?: number } = {},
  ): KvEvent {
    return { kind: 'remove', tier, group, engineHashes: this.hashesOf(blocks, alternative) }
  }
}

export function batchOf(worker: number, sequence: number, events: readonly KvEvent[], epoch = 0): KvBatch {
  return { worker: slotOf(worker), epoch, sequence, events }
}

export function emptyMatch(workers: number): PrefixMatch {
  const counts = (): Uint32Array => new Uint32Array(workers)
  return { gpu: counts(), host: counts(), disk: counts(), shared: counts() }
}
