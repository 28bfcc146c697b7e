import type { Worker } from '../workers/worker.ts'
import type { Target } from './claims.ts'

/**
 * What operators ordered of workers that a source names: to be drained, or to be gone. An order holds while a source names
 * the engine, through restarts of the engine and reloads of the config, and is forgotten with it.
 */
export class Orders {
  /** Worker id → its endpoint's. */
  readonly #drained = new Map<string, string>()
  readonly #removed = new Map<string, string>()

  isDrained(id: string): boolean {
    return this.#drained.has(id)
  }

  /** Of a worker or a whole endpoint. */
  isRemoved(id: string): boolean {
    return this.#removed.has(id)
  }

  drain(worker: Worker): void {
    this.#drained.set(worker.id, worker.origin + worker.basePath)
  }

  undrain(worker: Worker): void {
    this.#drained.delete(worker.id)
  }

  remove(worker: Worker): void {
    this.#removed.set(worker.id, worker.origin + worker.basePath)
  }

  removeEndpoint(id: string): void {
    this.#removed.set(id, id)
  }

  forgetRemoved(endpointId: string): void {
    for (const [id, of] of this.#removed) if (of === endpointId) this.#removed.delete(id)
  }

  /** Forgets the orders about engines that nobody names any more. */
  keepFor(targets: ReadonlyMap<string, Target>): void {
    for (const orders of [this.#drained, this.#removed])
      for (const [id, endpointId] of orders) if (!targets.has(endpointId)) orders.delete(id)
  }
}
