export type WorkerState = 'healthy' | 'unhealthy' | 'ejected' | 'draining'

/**
 * Whether a worker may be given requests, as three owners see it: the active checks say whether it is up, operators whether
 * it is to be drained, and passive outlier detection (`outliers.ts`) whether it is ejected for a while.
 */
export class Standing {
  /** Gets no new requests; those that it has go on. */
  draining = false
  /** What outlier detection remembers of it. */
  readonly record: OutlierRecord = {
    fresh: true,
    seenAtMs: Infinity,
    failures: 0,
    ejections: 0,
    ejectedUntilMs: null,
    probing: false,
    returnedAtMs: null,
    slowFromMs: null,
    pressedUntilMs: 0,
  }
  #up: boolean

  constructor(up = false) {
    this.#up = up
  }

  /** The last active checks succeeded, and it serves the model of its pool. */
  get up(): boolean {
    return this.#up
  }

  set up(up: boolean) {
    if (up && !this.#up) Object.assign(this.record, { fresh: true, seenAtMs: Infinity })
    this.#up = up
  }

  /** Taken out by outlier detection: gets nothing but probes. */
  get ejected(): boolean {
    return this.record.ejectedUntilMs !== null
  }

  get state(): WorkerState {
    if (this.draining) return 'draining'
    if (!this.#up) return 'unhealthy'
    return this.ejected ? 'ejected' : 'healthy'
  }
}

export interface OutlierRecord {
  /** It has come up since outlier detection looked last. */
  fresh: boolean
  /** When outlier detection saw first that it had come up. */
  seenAtMs: number
  /** In a row. */
  failures: number
  /** In a row, for the growing time of ejection. */
  ejections: number
  /** Null while it is not ejected; afterwards one probe at a time decides. */
  ejectedUntilMs: number | null
  probing: boolean
  /** When its last ejection ended. */
  returnedAtMs: number | null
  /** Begin of its slow start, null while it has its full share. */
  slowFromMs: number | null
  /** It asked for fewer requests until then (429 or 503 with `retry-after`). */
  pressedUntilMs: number
}
