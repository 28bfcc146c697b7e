import type { DecodedEvent, DecodedRemove, DecodedStore } from '../decode.ts'
import { HashSet } from '../hash-set.ts'
import type { TrtllmBlock, TrtllmData, TrtllmEvent, TrtllmStored, TrtllmUpdated } from './decode.ts'

/** What the state machine asks for; called synchronously, in order. */
export interface TrtllmRankOutputs {
  /** Events in the common terms; the number is that of the last one, also where nothing of it is of use. */
  apply(id: number, events: readonly DecodedEvent[]): void
  clear(reason: 'gap' | 'restart' | 'window'): void
  gap(): void
  restart(): void
  skipped(reason: string, count: number): void
  /** Blocks that the largest window's pool holds, by cache level. */
  capacity(blocksPerLevel: readonly number[]): void
}

export interface TrtllmRankOptions {
  /** Tokens a block, where it is known before the first event. */
  readonly blockSize: number | null
  /** Hashes of left-out blocks that are remembered, to know their removals and children again. */
  readonly maxLeftOut: number
}

/** Blocks that are applied in one turn of the event loop: about a millisecond. */
const turnBlocks = 1_024

/** Names of cache levels as the other engines write them. */
const mediumByLevel: readonly (string | undefined)[] = ['GPU', 'CPU', 'DISK']

/**
 * One rank of a TensorRT-LLM engine: puts its events into the order of their ids, notices lost ones and another process, and
 * translates what is left. Pure: no clock, no sockets.
 *
 * An engine announces each window of attention as a pool of its own, under ids that all of them share. Only the largest one
 * holds whole prefixes. Blocks that are not full, or hold more than their tokens say, are left out, and what hangs below them
 * with them: their hashes are kept, so that their removals are not taken for unknown ones.
 */
export class TrtllmRank {
  readonly #outputs: TrtllmRankOutputs
  readonly #leftOut: HashSet
  #blockSize: number | null
  #last: number | null = null
  /** The last number that was told. */
  #told: number | null = null
  #partial = false
  /** What was lost has been cleared already. */
  #mayJump = false
  #window: number | null = null
  /** While the process has told of its pools only. */
  #opening = true
  #pending: DecodedEvent[] = []

  constructor(options: TrtllmRankOptions, outputs: TrtllmRankOutputs) {
    this.#outputs = outputs
    this.#blockSize = options.blockSize
    this.#leftOut = new HashSet(options.maxLeftOut)
  }

  /** Number of the last event; null before the first. */
  get last(): number | null {
    return this.#last
  }

  /** True where blocks may be held that were announced before what is known. */
  get partial(): boolean {
    return this.#partial
  }

  /** Goes on behind the events that somebody else has polled. */
  resume(last: number | null, partial: boolean): void {
    this.#last = last
    this.#told = last
    this.#partial = partial
    this.#opening = last === null
  }

  /**
   * The events of one answer, in any order.
   *
   * @param turn Awaited now and then, so that a long answer leaves others their turn.
   */
  async take(events: readonly TrtllmEvent[], turn: () => Promise<void>): Promise<void> {
    const ordered = isOrdered(events) ? events : events.toSorted((a, b) => a.id - b.id)
    let previous: number | null = null
    let blocks = 0
    for (const { id, windowSize, group, data } of ordered) {
      if (id === previous) {
        this.#outputs.skipped('duplicate', 1)
        continue
      }
      this.#follow(id)
      previous = id
      this.#last = id
      if (this.#isOfWindow(windowSize, data)) this.#translate(group, data)
      blocks += data.kind === 'stored' ? data.blocks.length : 1
      if (blocks < turnBlocks) continue
      this.#flush()
      blocks = 0
      await turn()
    }
    this.#flush()
  }

  /** Events were lost, and nobody can say which. The next one may have any number. */
  lose(reason: 'gap' | 'window'): void {
    this.#pending = []
    this.#leftOut.clear()
    this.#partial = true
    this.#mayJump = true
    this.#outputs.clear(reason)
  }

  /** The process is gone; another one begins anew. */
  forget(): void {
    this.#last = null
    this.#told = null
    this.#beginAnew()
    this.#outputs.clear('restart')
  }

  #follow(id: number): void {
    const last = this.#last
    if (last === null) {
      this.#partial = id > 0
    } else if (id <= last) {
      // Within one answer ids only grow, since it was put into their order.
      this.#outputs.restart()
      this.forget()
      this.#partial = id > 0
    } else if (id > last + 1 && !this.#mayJump) {
      this.#flush()
      this.#outputs.gap()
      this.lose('gap')
    }
    this.#mayJump = false
  }

  #beginAnew(): void {
    this.#pending = []
    this.#leftOut.clear()
    this.#window = null
    this.#opening = true
  }

  #isOfWindow(windowSize: number | null, data: TrtllmData): boolean {
    if (data.kind !== 'created') this.#opening = false
    if (windowSize === null || windowSize === this.#window) return true
    if (this.#window === null || windowSize > this.#window) {
      // A larger one after blocks of a smaller one: first contact was in the middle of a process's life.
      if (this.#window !== null && !this.#opening) {
        this.#flush()
        this.lose('window')
      }
      this.#window = windowSize
      return true
    }
    this.#outputs.skipped('window', 1)
    return false
  }

  #translate(group: number, data: TrtllmData): void {
    switch (data.kind) {
      case 'created':
        this.#outputs.capacity(data.blocksPerLevel)
        return
      case 'stored':
        this.#store(group, data)
        return
      case 'removed':
        this.#remove(group, data.hashes)
        return
      case 'updated':
        this.#move(group, data)
        return
      case 'unknown':
        this.#outputs.skipped('unknown_kind', 1)
        return
      default:
        data satisfies never
    }
  }

  #store(group: number, event: TrtllmStored): void {
    const { parent, blocks } = event
    const blockSize = this.#sizeShownBy(blocks)
    let behind = parent !== null && this.#leftOut.has(parent[0] as number, parent[1] as number)
    let from = 0
    for (const [i, block] of blocks.entries()) {
      const reason = behind ? 'behind_left_out' : reasonToLeaveOut(block, blockSize)
      if (reason === null) {
        this.#leftOut.delete(block.low, block.high)
        if (i > from && block.level !== blocks[from]?.level) {
          this.#pushStore(group, event, from, i)
          from = i
        }
        continue
      }
      if (!behind) {
        this.#pushStore(group, event, from, i)
        behind = true
      }
      from = i + 1
      this.#leaveOut(block, reason)
    }
    this.#pushStore(group, event, from, blocks.length)
  }

  /** A run of full blocks on one level. */
  #pushStore(group: number, event: TrtllmStored, from: number, end: number): void {
    const run = event.blocks.slice(from, end)
    const [first] = run
    if (first === undefined) return
    const above = event.blocks[from - 1]
    this.#pending.push({
      ...storeOf(group, first.level),
      hashes: Uint32Array.from(run.flatMap(({ low, high }) => [low, high])),
      parent: above === undefined ? event.parent : Uint32Array.of(above.low, above.high),
      tokens: joined(run.map(({ tokens }) => tokens)),
      blockSize: first.tokens.length,
      loraName: event.loraName,
      cacheSalt: event.cacheSalt,
    })
  }

  #leaveOut(block: TrtllmBlock, reason: string): void {
    this.#outputs.skipped(reason, 1)
    if (!this.#leftOut.add(block.low, block.high)) this.#outputs.skipped('left_out_forgotten', 1)
  }

  /** All blocks of a store but the last one are full; of one alone only a larger size is believed. */
  #sizeShownBy(blocks: readonly TrtllmBlock[]): number | null {
    const tokens = blocks[0]?.tokens.length ?? 0
    const isFull = blocks.length > 1 || (this.#blockSize !== null && tokens > this.#blockSize)
    if (isFull) this.#blockSize = tokens
    return this.#blockSize
  }

  /** Removed means gone from every level. */
  #remove(group: number, hashes: Uint32Array): void {
    const kept: number[] = []
    for (let at = 0; at + 1 < hashes.length; at += 2) {
      const low = hashes[at] as number
      const high = hashes[at + 1] as number
      if (this.#leftOut.delete(low, high)) this.#outputs.skipped('left_out_removal', 1)
      else kept.push(low, high)
    }
    if (kept.length > 0)
      this.#pending.push({ ...removeOf(group, null), hashes: Uint32Array.from(kept), everywhere: true })
  }

  /** Offloaded or brought back: a store where it goes to, then a removal where it was, so that it is never held nowhere. */
  #move(group: number, { low, high, level }: TrtllmUpdated): void {
    if (level === null || level.from === level.to || this.#leftOut.has(low, high)) return
    const hashes = Uint32Array.of(low, high)
    const from = mediumByLevel[level.from]
    if (mediumByLevel[level.to] === undefined) this.#outputs.skipped('unknown_medium', 1)
    else this.#pending.push({ ...storeOf(group, level.to), hashes })
    if (from === undefined) this.#outputs.skipped('unknown_medium', 1)
    else this.#pending.push({ ...removeOf(group, from), hashes })
  }

  #flush(): void {
    // Whoever polls next has to know which numbers were taken, whatever they were.
    if (this.#last === null || (this.#pending.length === 0 && this.#last === this.#told)) return
    const events = this.#pending
    this.#pending = []
    this.#told = this.#last
    this.#outputs.apply(this.#last, events)
  }
}

function isOrdered(events: readonly TrtllmEvent[]): boolean {
  return events.every(({ id }, i) => i === 0 || id > (events[i - 1]?.id ?? -1))
}

function reasonToLeaveOut({ tokens, plain, level }: TrtllmBlock, blockSize: number | null): string | null {
  if (blockSize === null) return 'block_size_unknown'
  if (tokens.length < blockSize) return 'partial_block'
  if (tokens.length > blockSize) return 'tokens_mismatch'
  if (!plain) return 'media'
  return mediumByLevel[level] === undefined ? 'unknown_medium' : null
}

/** A store by hash alone, of a block that is known. */
function storeOf(group: number, level: number): Omit<DecodedStore, 'hashes'> {
  return {
    kind: 'store',
    parent: null,
    tokens: new Uint32Array(0),
    pairs: false,
    blockSize: 0,
    loraId: null,
    loraName: null,
    medium: mediumByLevel[level] ?? null,
    cacheSalt: null,
    extraKeys: null,
    group,
    specKind: null,
    slidingWindow: null,
    locality: null,
    ownership: null,
    sessionId: null,
  }
}

function removeOf(group: number, medium: string | null): Omit<DecodedRemove, 'hashes'> {
  return { kind: 'remove', medium, group, locality: null, ownership: null }
}

function joined(parts: readonly Uint32Array[]): Uint32Array {
  const whole = new Uint32Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}
