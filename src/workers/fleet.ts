import { count } from './count.ts'
import type { Worker } from './worker.ts'

/** Words a worker in the shared counters. */
const stride = 4
const requestsAt = 0
const prefillTokensAt = 1
const decodeBlocksAt = 2
const sequencesAt = 3
/** What readers can hold in 32 bits with a sign. */
export const mostShown = 2 ** 31 - 1

/**
 * What is in flight on every worker, by slot, on shared memory so that request threads can count and read without
 * messages (decision 26). All units are whole numbers: Atomics refuse floats.
 */
export class InFlightCounters {
  readonly #words: Int32Array
  /** Told the slot whenever requests or prefill tokens change; what is decoded changes all the time. */
  onChange: ((slot: number) => void) | null = null

  constructor(workers: number, buffer = new SharedArrayBuffer(workers * stride * 4)) {
    this.#words = new Int32Array(buffer)
  }

  get buffer(): SharedArrayBuffer {
    return this.#words.buffer as SharedArrayBuffer
  }

  requests(slot: number): number {
    return this.#read(slot * stride + requestsAt)
  }

  prefillTokens(slot: number): number {
    return this.#read(slot * stride + prefillTokensAt)
  }

  decodeBlocks(slot: number): number {
    return this.#read(slot * stride + decodeBlocksAt)
  }

  /** What engines count as requests: one for each prompt of a request and each answer to it. */
  sequences(slot: number): number {
    return this.#read(slot * stride + sequencesAt)
  }

  add(slot: number, requests: number, prefillTokens: number, decodeBlocks: number, sequences = requests): void {
    const at = slot * stride
    if (requests !== 0) Atomics.add(this.#words, at + requestsAt, requests)
    if (prefillTokens !== 0) Atomics.add(this.#words, at + prefillTokensAt, prefillTokens)
    if (decodeBlocks !== 0) Atomics.add(this.#words, at + decodeBlocksAt, decodeBlocks)
    if (sequences !== 0) Atomics.add(this.#words, at + sequencesAt, sequences)
    if (this.onChange !== null && (requests !== 0 || prefillTokens !== 0)) this.onChange(slot)
  }

  #read(at: number): number {
    return Math.min(mostShown, Atomics.load(this.#words, at) >>> 0)
  }
}

/**
 * One request's share of the counters of one worker (decision 17). Whatever happens to the request, `release` gives back
 * exactly what was added, exactly once.
 */
export class InFlight {
  readonly #counters: InFlightCounters
  readonly #slot: number
  readonly #blockSize: number
  readonly #promptTokens: number
  readonly #sequences: number
  #prefillTokens: number
  #decodeBlocks: number
  #generated = 0
  #released = false

  constructor(
    counters: InFlightCounters,
    slot: number,
    options: { promptTokens: number; uncachedTokens: number; blockSize: number; sequences: number },
  ) {
    this.#counters = counters
    this.#slot = slot
    this.#blockSize = Math.max(1, count(options.blockSize))
    this.#promptTokens = count(options.promptTokens)
    this.#sequences = Math.max(1, count(options.sequences))
    this.#prefillTokens = count(options.uncachedTokens)
    this.#decodeBlocks = this.#blocks()
    counters.add(slot, 1, this.#prefillTokens, this.#decodeBlocks, this.#sequences)
  }

  /** Lowers the outstanding prefill tokens to `left`: all at the first byte of a stream, bit by bit otherwise. */
  prefilledTo(left: number): void {
    const tokens = count(left)
    if (this.#released || tokens >= this.#prefillTokens) return
    this.#counters.add(this.#slot, 0, tokens - this.#prefillTokens, 0)
    this.#prefillTokens = tokens
  }

  /** Counts generated tokens (one a chunk of the stream). */
  generated(tokens: number): void {
    if (this.#released) return
    this.#generated += count(tokens)
    const blocks = this.#blocks()
    if (blocks === this.#decodeBlocks) return
    this.#counters.add(this.#slot, 0, 0, blocks - this.#decodeBlocks)
    this.#decodeBlocks = blocks
  }

  release(): void {
    if (this.#released) return
    this.#released = true
    this.#counters.add(this.#slot, -1, -this.#prefillTokens, -this.#decodeBlocks, -this.#sequences)
  }

  #blocks(): number {
    const tokens = this.#promptTokens + this.#generated / this.#sequences
    return count(this.#sequences * Math.ceil(tokens / this.#blockSize))
  }
}

/**
 * All workers, by slot. A slot is reused once its worker is gone; a serial never is. Two workers may have one id for a
 * while: one that leaves, and the one that takes its place.
 */
export class Fleet {
  readonly counters: InFlightCounters
  readonly limit: number
  readonly #bySlot: (Worker | undefined)[] = []
  readonly #workers = new Set<Worker>()
  #nextSerial = 0

  constructor(limit: number) {
    this.limit = limit
    this.counters = new InFlightCounters(limit)
  }

  /** Takes a free slot for the worker that `make` builds from it; null when the fleet is full. */
  add(make: (slot: number, serial: number) => Worker): Worker | null {
    let slot = 0
    while (this.#bySlot[slot] !== undefined) slot++
    if (slot >= this.limit) return null
    const worker = make(slot, this.#nextSerial++)
    this.#bySlot[slot] = worker
    this.#workers.add(worker)
    return worker
  }

  remove(worker: Worker): void {
    if (this.#bySlot[worker.slot] !== worker) return
    this.#bySlot[worker.slot] = undefined
    this.#workers.delete(worker)
  }

  /** The newest worker of this id. */
  get(id: string): Worker | undefined {
    return [...this.#workers].findLast((worker) => worker.id === id)
  }

  workers(): IterableIterator<Worker> {
    return this.#workers.values()
  }
}
