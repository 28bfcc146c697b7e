import { RouterError } from '../errors.ts'
import type { Fleet } from '../workers/fleet.ts'
import type { Worker } from '../workers/worker.ts'

/** What other replicas of the router know of owners; as much of it as has come here. */
export interface OwnersElsewhere {
  /** The response was made through this replica. */
  noted(responseId: string, worker: Worker): void
  find(responseId: string): Worker | undefined
}

/**
 * Which worker holds which response of the Responses API: only it can go on from one, show it or cancel it. Bounded; the
 * oldest are forgotten first, as engines forget them.
 */
export class ResponseOwners {
  readonly #fleet: Fleet
  readonly #kept: number
  readonly #elsewhere: OwnersElsewhere | undefined
  readonly #owners = new Map<string, Worker>()

  /** @param elsewhere absent where this router is the only one */
  constructor(fleet: Fleet, kept: number, elsewhere?: OwnersElsewhere) {
    this.#fleet = fleet
    this.#kept = kept
    this.#elsewhere = elsewhere
  }

  add(responseId: string, worker: Worker): void {
    this.#owners.delete(responseId)
    this.#owners.set(responseId, worker)
    this.#elsewhere?.noted(responseId, worker)
    if (this.#owners.size <= this.#kept) return
    const [oldest] = this.#owners.keys()
    if (oldest !== undefined) this.#owners.delete(oldest)
  }

  /** @throws RouterError RESPONSE_NOT_FOUND */
  owner(responseId: string): Worker {
    const worker = this.#owners.get(responseId) ?? this.#elsewhere?.find(responseId)
    if (worker === undefined) throw notFound(responseId, 'it is not known here, or too old')
    // A worker that was removed may be back under its name, but as another process.
    if (this.#fleet.get(worker.id) !== worker || !worker.standing.up) {
      throw notFound(responseId, 'the worker that held it is gone')
    }
    return worker
  }

  get size(): number {
    return this.#owners.size
  }
}

function notFound(responseId: string, reason: string): RouterError {
  return new RouterError('RESPONSE_NOT_FOUND', `Response with id '${responseId}' not found: ${reason}.`, {
    param: 'response_id',
  })
}
