export type WorkerState = 'healthy' | 'unhealthy' | 'ejected' | 'draining'

/**
 * Whether a worker may be given requests, as three owners see it: the active checks say whether it is up, operators whether
 * it is to be drained, and passive outlier detection (`outliers.ts`) whether it is ejected for a while.
 */
export class Standing {
  /** The last active checks succeeded, and it serves the model of its pool. */
  up: boolean
  /** Gets no new requests; those that it has go on. */
  draining = false
  /** Taken out by outlier detection: gets nothing but probes. */
  ejected = false

  constructor(up = false) {
    this.up = up
  }

  get state(): WorkerState {
    if (this.draining) return 'draining'
    if (!this.up) return 'unhealthy'
    return this.ejected ? 'ejected' : 'healthy'
  }
}
