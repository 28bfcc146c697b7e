import { sharedBlocks } from '../kv/keys.ts'

/** A row of blocks that were always used together; others hang below its last one. */
interface Run {
  parent: Run | null
  /** Where it is in `below` of its parent. */
  readonly name: number
  /** Keys of its own blocks, two words a block. */
  keys: Uint32Array
  /** By name; null where none hangs below. */
  below: Map<number, Run> | null
  usedMs: number
  /** Neighbours in the order of use. */
  newer: Run | null
  older: Run | null
}

/**
 * What one engine's prefix cache holds if it keeps what was used last: the prompts that went there as a tree of runs, with
 * the order in which they were used.
 *
 *     system prompt ──┬── first question ──── second question        oldest ◄─ order of use ─► newest
 *      (run 0)        │     (run 1)             (run 2)              run 2, run 1, run 3, run 0
 *                     └── another's question (run 3)
 *
 * Whenever a run is used, so are all above it, and just after it. So the oldest run never has another below it, and taking
 * blocks from its end keeps the tree what a prefix cache is: a block is there only while all before it are. A prompt costs
 * as many steps as it has runs, mostly one a turn of its conversation, and not as many as it has blocks.
 */
export class RecencyTree {
  /** Holds no block; what begins a prompt hangs below it. */
  readonly #top: Run = newRun(null, new Uint32Array(0), 0)
  #newest: Run | null = null
  #oldest: Run | null = null
  #blocks = 0
  #runs = 0

  get blocks(): number {
    return this.#blocks
  }

  get runs(): number {
    return this.#runs
  }

  /** Leading blocks of a prompt that are there. */
  heldBlocks(keys: Uint32Array): number {
    let run = this.#top
    for (let at = 0; ;) {
      const next = childAt(run, keys, at)
      if (next === undefined) return at
      const common = sharedBlocks(next.keys, 0, keys, at)
      at += common
      if (common < blocksOf(next)) return at
      run = next
    }
  }

  /** Notes that a prompt was used: all of its blocks are there now. The number of those that were before. */
  use(keys: Uint32Array, nowMs: number): number {
    const [run, held] = this.#find(keys)
    let last = run
    if (2 * held < keys.length) last = this.#add(run, keys.slice(2 * held))
    for (let at = last; at.parent !== null; at = at.parent) {
      at.usedMs = nowMs
      this.#unlink(at)
      this.#linkNewest(at)
    }
    return held
  }

  /** Forgets a prompt's blocks from one on, and whatever hangs below them. Calls `gone` with the keys. */
  cut(keys: Uint32Array, fromBlock: number, gone: (keys: Uint32Array) => void): void {
    if (this.heldBlocks(keys) <= fromBlock) return
    const [above] = this.#find(keys.subarray(0, 2 * fromBlock))
    const first = childAt(above, keys, fromBlock)
    if (first !== undefined) this.#dropAll(first, gone)
  }

  /** Gives up the blocks that were used longest ago until at most so many are left. */
  shrink(toBlocks: number, gone: (keys: Uint32Array) => void): void {
    while (this.#blocks > toBlocks && this.#oldest !== null) {
      const run = this.#oldest
      const kept = Math.max(0, blocksOf(run) - (this.#blocks - toBlocks))
      gone(run.keys.subarray(2 * kept))
      this.#blocks -= blocksOf(run) - kept
      run.keys = run.keys.slice(0, 2 * kept)
      if (kept === 0) this.#drop(run)
    }
  }

  /** Forgets what was last used at or before this time. */
  expire(usedMs: number, gone: (keys: Uint32Array) => void): void {
    while (this.#oldest !== null && this.#oldest.usedMs <= usedMs) {
      const run = this.#oldest
      gone(run.keys)
      this.#blocks -= blocksOf(run)
      this.#drop(run)
    }
  }

  clear(): void {
    this.#top.below = null
    this.#newest = null
    this.#oldest = null
    this.#blocks = 0
    this.#runs = 0
  }

  /** The run that ends where what is held of a prompt ends, split from what follows if need be, and that place. */
  #find(keys: Uint32Array): readonly [Run, number] {
    let run = this.#top
    for (let at = 0; ;) {
      const next = childAt(run, keys, at)
      if (next === undefined) return [run, at]
      const common = sharedBlocks(next.keys, 0, keys, at)
      if (common === 0) return [run, at]
      if (common < blocksOf(next)) this.#split(next, common)
      at += common
      run = next
    }
  }

  #add(parent: Run, keys: Uint32Array): Run {
    const run = newRun(parent, keys, 0)
    parent.below ??= new Map()
    // Names are a little shorter than keys. A run whose name another one takes is found no more, and expires.
    parent.below.set(run.name, run)
    this.#blocks += blocksOf(run)
    this.#runs++
    this.#linkNewest(run)
    return run
  }

  /** Leaves a run its first blocks and hangs the others below it, one place older. */
  #split(run: Run, blocks: number): void {
    const rest = newRun(run, run.keys.slice(2 * blocks), run.usedMs)
    rest.below = run.below
    rest.newer = run
    rest.older = run.older
    for (const child of rest.below?.values() ?? []) child.parent = rest
    if (rest.older === null) this.#oldest = rest
    else rest.older.newer = rest
    run.older = rest
    run.keys = run.keys.slice(0, 2 * blocks)
    run.below = new Map([[rest.name, rest]])
    this.#runs++
  }

  #dropAll(run: Run, gone: (keys: Uint32Array) => void): void {
    // The list grows while it is gone through, and is then dropped from below.
    const all = [run]
    for (const at of all) if (at.below !== null) all.push(...at.below.values())
    for (const at of all.reverse()) {
      gone(at.keys)
      this.#blocks -= blocksOf(at)
      this.#drop(at)
    }
  }

  #drop(run: Run): void {
    const { parent } = run
    this.#unlink(run)
    this.#runs--
    if (parent?.below?.get(run.name) !== run) return
    parent.below.delete(run.name)
    if (parent.below.size === 0) parent.below = null
  }

  #unlink(run: Run): void {
    if (run.newer === null) this.#newest = run.older
    else run.newer.older = run.older
    if (run.older === null) this.#oldest = run.newer
    else run.older.newer = run.newer
    run.newer = null
    run.older = null
  }

  #linkNewest(run: Run): void {
    run.older = this.#newest
    if (this.#newest === null) this.#oldest = run
    else this.#newest.newer = run
    this.#newest = run
  }
}

function newRun(parent: Run | null, keys: Uint32Array, usedMs: number): Run {
  return { parent, name: nameOf(keys, 0), keys, below: null, usedMs, newer: null, older: null }
}

function childAt(run: Run, keys: Uint32Array, block: number): Run | undefined {
  return run.below === null || 2 * block >= keys.length ? undefined : run.below.get(nameOf(keys, block))
}

/** As much of a key as fits into a number. */
function nameOf(keys: Uint32Array, block: number): number {
  return keys.length === 0 ? 0 : ((keys[2 * block + 1] as number) & 0x1fffff) * 2 ** 32 + (keys[2 * block] as number)
}

function blocksOf({ keys }: Run): number {
  return keys.length >>> 1
}
