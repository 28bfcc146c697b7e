import type { Worker } from './worker.ts'

/** Words a worker in the shared counters. */
const stride = 4
const requestsAt = 0
const prefillTokensAt = 1
const decodeBlocksAt = 2

/**
 * What is in flight on every worker, by slot, on shared memory so that request threads can count and read without
 * messages (decision 26). All units are whole numbers: Atomics refuse floats.
 */
export class InFlightCounters {
  readonly #words: Int32Array

  constructor(workers: number, buffer = new SharedArrayBuffer(workers * stride * 4)) {
    this.#words = new Int32Array(buffer)
  }

  get buffer(): SharedArrayBuffer {
    return this.#words.buffer as SharedArrayBuffer
  }

  requests(slot: number): number {
    return Atomics.load(this.#words, slot * stride + requestsAt)
  }

  prefillTokens(slot: number): number {
    return Atomics.load(this.#words, slot * stride + prefillTokensAt)
  }

  decodeBlocks(slot: number): number {
    return Atomics.load(this.#words, slot * stride + decodeBlocksAt)
  }

  add(slot: number, requests: number, prefillTokens: number, decodeBlocks: number): void {
    const at = slot * stride
    if (requests !== 0) Atomics.add(this.#words, at + requestsAt, requests)
    if (prefillTokens !== 0) Atomics.add(this.#words, at + prefillTokensAt, prefillTokens)
    if (decodeBlocks !== 0) Atomics.add(this.#words, at + decodeBlocksAt, decodeBlocks)
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
    this.#blockSize = options.blockSize
    this.#promptTokens = options.promptTokens
    this.#sequences = options.sequences
    this.#prefillTokens = options.uncachedTokens
    this.#decodeBlocks = options.sequences * Math.ceil(options.promptTokens / options.blockSize)
    counters.add(slot, 1, this.#prefillTokens, this.#decodeBlocks)
  }

  /** Lowers the outstanding prefill tokens to `left`: all at the first byte of a stream, bit by bit otherwise. */
  prefilledTo(left: number): void {
    if (this.#released || left >= this.#prefillTokens) return
    this.#counters.add(this.#slot, 0, left - this.#prefillTokens, 0)
    this.#prefillTokens = left
  }

  /** Counts generated tokens (one a chunk of the stream). */
  generated(tokens: number): void {
    if (this.#released) return
    this.#generated += tokens
    const blocks =
      this.#sequences * Math.ceil((this.#promptTokens + this.#generated / this.#sequences) / this.#blockSize)
    if (blocks === this.#decodeBlocks) return
    this.#counters.add(this.#slot, 0, 0, blocks - this.#decodeBlocks)
    this.#decodeBlocks = blocks
  }

  release(): void {
    if (this.#released) return
    this.#released = true
    this.#counters.add(this.#slot, -1, -this.#prefillTokens, -this.#decodeBlocks)
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
