import type { KvEvent } from '../simulator/kv-event.ts'
import type { GivenBlocks } from '../simulator/sequence.ts'
import type { MeasuredLoad } from '../workers/worker.ts'

/** One request on its way, as the run in virtual time tells a chooser of it. */
export interface VirtualRequest {
  readonly id: string
  readonly prompt: GivenPrompt
  /** Name of the client's session; null where it tells none. */
  readonly session: string | null
}

/** A prompt by its blocks: how the engines name them, and how the router does. */
export interface GivenPrompt extends GivenBlocks {
  /** Keys of the prompt's full blocks, two words a block. */
  readonly keys: Uint32Array
}

/** Chooses a worker for each request and hears what a router would hear of it afterwards. */
export interface Chooser {
  /** Index of the worker that gets the request, from now on under way. */
  choose(request: VirtualRequest, nowMs: number): Choice
  firstToken(id: string, nowMs: number): void
  /** Tokens that have come since this was last told; a router counts them as they pass. */
  generated(id: string, tokens: number): void
  /** @param cachedTokens What the engine reports of its prompt. */
  finished(id: string, cachedTokens: number, nowMs: number): void
  /** It was given up, or its engine broke off. */
  aborted(id: string): void
  /** A worker's load as it reports it. */
  measured(worker: number, load: MeasuredLoad): void
  applyEvents(worker: number, events: readonly KvEvent[]): void
  /** A worker is there no more, with all that it held and all that it was sent. */
  left(worker: number): void
  /** It is there again, or for the first time, and holds nothing. */
  joined(worker: number): void
  /** Events of a worker are lost for good: nothing that was known of it holds. */
  forget(worker: number): void
}

export interface Choice {
  readonly worker: number
  /** Prompt tokens that it is thought to have cached. */
  readonly predictedCachedTokens: number
  /** Further ones that requests under way there will have computed before it begins. */
  readonly comingTokens: number
}
