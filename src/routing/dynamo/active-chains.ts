import { sharedBlocks } from '../../kv/keys.ts'

/** A run of blocks that the same requests pass through, and the requests of each holder among them. */
interface Segment<Holder> {
  /** Of one of these requests, from its first block on; the segment's own are the blocks from `from` to `to`. */
  keys: Uint32Array
  readonly from: number
  to: number
  /** By the name of their first block. */
  children: Map<bigint, Segment<Holder>>
  readonly requests: Map<Holder, number>
}

/** Told how many leading blocks of a prompt a holder has; the last word counts. */
export type ReachedBlocks<Holder> = (holder: Holder, blocks: number) => void

/**
 * The blocks of running prompts, each counted once a holder however many of its requests share them.
 *
 *     ███ system prompt ███┬█ app A █┬█ session 1 █
 *                          │         └█ session 2 █
 *                          └█ app B ███            each segment: how many requests of which holder pass through
 *
 * A prompt costs a step for each segment on its way, not for each block: a block's key names all blocks before it, so
 * that two prompts part once and for all.
 */
export class ActiveChains<Holder> {
  readonly #roots = new Map<bigint, Segment<Holder>>()
  readonly #onBlocks: (holder: Holder, change: number) => void

  /** @param onBlocks told of blocks that became the holder's, or are no longer */
  constructor(onBlocks: (holder: Holder, change: number) => void) {
    this.#onBlocks = onBlocks
  }

  /** @param keys two words a block; kept, so they must not change */
  add(keys: Uint32Array, holder: Holder): void {
    const blocks = keys.length >>> 1
    let children = this.#roots
    for (let at = 0; at < blocks;) {
      const name = nameOf(keys, at)
      let segment = children.get(name)
      if (segment === undefined) {
        segment = { keys, from: at, to: blocks, children: new Map(), requests: new Map() }
        children.set(name, segment)
      } else {
        const end = reachedIn(segment, keys)
        if (end < segment.to) split(segment, end)
      }
      const requests = segment.requests.get(holder) ?? 0
      if (requests === 0) this.#onBlocks(holder, segment.to - at)
      segment.requests.set(holder, requests + 1)
      at = segment.to
      children = segment.children
    }
  }

  /** Takes back one `add` of the same keys and holder. */
  remove(keys: Uint32Array, holder: Holder): void {
    const path: Segment<Holder>[] = []
    let children = this.#roots
    for (let at = 0; at < keys.length >>> 1;) {
      const segment = children.get(nameOf(keys, at))
      const requests = segment?.requests.get(holder)
      if (segment === undefined || requests === undefined) break
      path.push(segment)
      if (requests > 1) segment.requests.set(holder, requests - 1)
      else {
        segment.requests.delete(holder)
        this.#onBlocks(holder, segment.from - segment.to)
      }
      at = segment.to
      children = segment.children
    }
    for (let i = path.length - 1; i >= 0; i--) {
      const segment = path[i] as Segment<Holder>
      if (segment.requests.size > 0) joinOnlyChild(segment)
      else (path[i - 1]?.children ?? this.#roots).delete(nameOf(segment.keys, segment.from))
    }
  }

  /** How far a prompt's leading blocks are among those of each holder; holders without any are not told of. */
  reach(keys: Uint32Array, reached: ReachedBlocks<Holder>): void {
    const blocks = keys.length >>> 1
    let children = this.#roots
    for (let at = 0; at < blocks;) {
      const segment = children.get(nameOf(keys, at))
      if (segment === undefined) return
      at = reachedIn(segment, keys)
      for (const holder of segment.requests.keys()) reached(holder, at)
      if (at < segment.to) return
      children = segment.children
    }
  }
}

/** Where the prompt leaves the segment: at its end at the latest. */
function reachedIn<Holder>(segment: Segment<Holder>, keys: Uint32Array): number {
  return Math.min(segment.to, segment.from + sharedBlocks(segment.keys, segment.from, keys, segment.from))
}

function split<Holder>(segment: Segment<Holder>, at: number): void {
  const { keys, to, children, requests } = segment
  const lower = { keys, from: at, to, children, requests: new Map(requests) }
  segment.children = new Map([[nameOf(keys, at), lower]])
  segment.to = at
}

/** Undoes a split once all requests of the segment go on in the same way again. */
function joinOnlyChild<Holder>(segment: Segment<Holder>): void {
  if (segment.children.size !== 1) return
  for (const child of segment.children.values()) {
    if (child.requests.size !== segment.requests.size) return
    for (const [holder, requests] of segment.requests) if (child.requests.get(holder) !== requests) return
    segment.keys = child.keys
    segment.to = child.to
    segment.children = child.children
  }
}

const words = new Uint32Array(2)
const wide = new BigUint64Array(words.buffer)

function nameOf(keys: Uint32Array, block: number): bigint {
  words[0] = keys[2 * block] as number
  words[1] = keys[2 * block + 1] as number
  return wide[0] as bigint
}
