import type { Dispatch } from '../policy.ts'
import { ActiveChains } from './active-chains.ts'

/** What runs on a worker, as the router counts it from its own dispatches. */
export interface ActiveLoad {
  requests: number
  /** Prompt tokens that were not cached when their request was sent, until its first byte. */
  prefillTokens: number
  /** Full blocks of running prompts, shared ones once. */
  blocks: number
  /** Leading blocks of the prompt that was asked about last which are among these. */
  sharedBlocks: number
}

export interface ActiveLoadOptions {
  /** Whether equal blocks of two requests are one. */
  readonly sharesBlocks: boolean
  /** After so long a request counts no more: its end was missed. */
  readonly expiryMs: number
}

interface Booking {
  readonly serial: number
  readonly load: ActiveLoad
  /** Of blocks that others may share. */
  readonly keys: Uint32Array | null
  /** Those that nobody can. */
  readonly blocks: number
  prefillTokens: number
  readonly atMs: number
}

const idle: Readonly<ActiveLoad> = { requests: 0, prefillTokens: 0, blocks: 0, sharedBlocks: 0 }

/** Requests, prefill and blocks under way on each worker, from dispatch to end. */
export class ActiveLoads {
  readonly #options: ActiveLoadOptions
  readonly #loads = new Map<number, ActiveLoad>()
  /** Oldest first. */
  readonly #bookings = new Map<Dispatch, Booking>()
  readonly #chains = new ActiveChains<ActiveLoad>((load, change) => {
    load.blocks += change
  })

  constructor(options: ActiveLoadOptions) {
    this.#options = options
  }

  of(serial: number): Readonly<ActiveLoad> {
    return this.#loads.get(serial) ?? idle
  }

  /** Fills `sharedBlocks` of every worker for a prompt, named by the keys of its full blocks. */
  ask(keys: Uint32Array): void {
    for (const load of this.#loads.values()) load.sharedBlocks = 0
    this.#chains.reach(keys, (load, blocks) => {
      load.sharedBlocks = blocks
    })
  }

  /** @param unnamedBlocks of a prompt whose keys are not known, as of other replicas: they are shared with nobody */
  begin(dispatch: Dispatch, prefillTokens: number, unnamedBlocks: number): void {
    const { serial, atMs } = dispatch
    this.#expire(atMs)
    let load = this.#loads.get(serial)
    if (load === undefined) {
      load = { requests: 0, prefillTokens: 0, blocks: 0, sharedBlocks: 0 }
      this.#loads.set(serial, load)
    }
    const keys = this.#options.sharesBlocks ? dispatch.keys : null
    const blocks = dispatch.keys === null ? unnamedBlocks : keys === null ? dispatch.keys.length >>> 1 : 0
    this.#bookings.set(dispatch, { serial, load, keys, blocks, prefillTokens, atMs })
    load.requests++
    load.prefillTokens += prefillTokens
    load.blocks += blocks
    if (keys !== null) this.#chains.add(keys, load)
  }

  prefilled(dispatch: Dispatch): void {
    const booking = this.#bookings.get(dispatch)
    if (booking === undefined) return
    booking.load.prefillTokens -= booking.prefillTokens
    booking.prefillTokens = 0
  }

  end(dispatch: Dispatch): void {
    const booking = this.#bookings.get(dispatch)
    if (booking === undefined) return
    this.prefilled(dispatch)
    this.#bookings.delete(dispatch)
    const { serial, load, keys, blocks } = booking
    load.blocks -= blocks
    if (keys !== null) this.#chains.remove(keys, load)
    load.requests--
    if (load.requests === 0) this.#loads.delete(serial)
  }

  #expire(nowMs: number): void {
    for (const [dispatch, { atMs }] of this.#bookings) {
      if (nowMs - atMs < this.#options.expiryMs) return
      this.end(dispatch)
    }
  }
}
