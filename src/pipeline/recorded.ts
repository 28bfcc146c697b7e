/** One answered request as a replay needs it: keys and lengths, never text (decisions 2 and 18). */
export interface RecordedRequest {
  /** Unix time at which it came, in milliseconds. */
  readonly timeMs: number
  readonly model: string
  /** Tokens in a block of the worker that answered. */
  readonly blockSize: number
  readonly promptTokens: number
  readonly outputTokens: number
  /** Names of the prompt's full blocks, two words a block, low word first. */
  readonly keys: Uint32Array
  readonly worker: string
  readonly predictedCachedTokens: number
  /** Null where the engine did not tell. */
  readonly cachedTokens: number | null
}

export interface RequestRecorder {
  /** Returns at once; what cannot be kept is counted, and nothing waits for it. */
  record(request: RecordedRequest): void
}
