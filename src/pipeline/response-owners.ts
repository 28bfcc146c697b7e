import { RouterError } from '../errors.ts'
import type { Fleet } from '../workers/fleet.ts'
import type { Worker } from '../workers/worker.ts'

/**
 * Which worker holds which response of the Responses API: only it can go on from one, show it or cancel it. Bounded; the
 * oldest are forgotten first, as engines forget them.
 */
export class ResponseOwners {
  readonly #fleet: Fleet
  readonly #kept: number
  readonly #owners = new Map<string, Worker>()

  constructor(fleet: Fleet, kept: number) {
    this.#fleet = fleet
    this.#kept = kept
  }

  add(responseId: string, worker: Worker): void {
    this.#owners.delete(responseId)
    this.#owners.set(responseId, worker)
    if (this.#owners.size <= this.#kept) return
    const [oldest] = this.#owners.keys()
    if (oldest !== undefined) this.#owners.delete(oldest)
  }

  /** @throws RouterError RESPONSE_NOT_FOUND */
  owner(responseId: string): Worker {
    const worker = this.#owners.get(responseId)
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
