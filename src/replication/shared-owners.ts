import { createHmac } from 'node:crypto'
import type { Worker } from '../workers/worker.ts'
import type { OwnerRecord } from './shared-record.ts'
import type { SharedWorkers } from './shared-workers.ts'

export interface SharedOwnersOptions {
  readonly workers: SharedWorkers
  /** Equal on all replicas: without it nobody can tell whether a hash is that of a response. */
  readonly secret: Uint8Array
  /** Responses of other replicas that are remembered; the oldest are forgotten first. */
  readonly kept: number
  readonly tell: (record: OwnerRecord) => void
}

/** Which worker holds the responses that came through other replicas, as far as they have told. */
export class SharedOwners {
  readonly #o: SharedOwnersOptions
  readonly #owners = new Map<string, Worker>()

  constructor(options: SharedOwnersOptions) {
    this.#o = options
  }

  /** A response came through this replica. */
  noted(responseId: string, worker: Worker): void {
    this.#o.tell({ kind: 'owner', response: this.#hash(responseId), worker: worker.id })
  }

  find(responseId: string): Worker | undefined {
    return this.#owners.size === 0 ? undefined : this.#owners.get(this.#hash(responseId))
  }

  apply({ response, worker: id }: OwnerRecord): void {
    const worker = this.#o.workers.newest(id)
    if (worker === undefined) return
    this.#owners.delete(response)
    this.#owners.set(response, worker)
    if (this.#owners.size <= this.#o.kept) return
    const [oldest] = this.#owners.keys()
    if (oldest !== undefined) this.#owners.delete(oldest)
  }

  /** 128 bits: two responses never share one. */
  #hash(responseId: string): string {
    return createHmac('sha256', this.#o.secret).update(`response ${responseId}`).digest('hex').slice(0, 32)
  }
}
