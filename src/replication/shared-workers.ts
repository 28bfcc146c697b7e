import type { Worker } from '../workers/worker.ts'
import { mostWorkerIdBytes } from './shared-record.ts'

const none: readonly Worker[] = []

/** The workers of this replica by what others call them. Two may have one id for a while: one that leaves, and its successor. */
export class SharedWorkers {
  readonly #byId = new Map<string, Worker[]>()
  readonly #bySlot: (Worker | undefined)[] = []
  readonly #bySerial = new Map<number, Worker>()

  add(worker: Worker): void {
    if (Buffer.byteLength(worker.id) > mostWorkerIdBytes || this.#bySlot[worker.slot] === worker) return
    this.#bySlot[worker.slot] = worker
    this.#bySerial.set(worker.serial, worker)
    const known = this.#byId.get(worker.id)
    if (known === undefined) this.#byId.set(worker.id, [worker])
    else known.push(worker)
  }

  remove(worker: Worker): void {
    if (this.#bySlot[worker.slot] === worker) this.#bySlot[worker.slot] = undefined
    this.#bySerial.delete(worker.serial)
    const left = this.of(worker.id).filter((other) => other !== worker)
    if (left.length > 0) this.#byId.set(worker.id, left)
    else this.#byId.delete(worker.id)
  }

  /** The oldest first. */
  of(id: string): readonly Worker[] {
    return this.#byId.get(id) ?? none
  }

  newest(id: string): Worker | undefined {
    return this.of(id).at(-1)
  }

  at(slot: number): Worker | undefined {
    return this.#bySlot[slot]
  }

  withSerial(serial: number): Worker | undefined {
    return this.#bySerial.get(serial)
  }

  ids(): IterableIterator<string> {
    return this.#byId.keys()
  }
}
