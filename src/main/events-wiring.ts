import type { WorkerSlot } from '../kv/batch.ts'
import type { FlatMap } from '../map/flat-map.ts'
import type { Worker } from '../workers/worker.ts'
import type { EventsPlace, WorkerEvents } from './keeper.ts'
export class EventsWiring {
  readonly #o: { map: FlatMap }
  constructor(o: any) { this.#o = o }
  addWorker(worker: Worker): void { this.#o.map.addWorker(worker.slot as WorkerSlot, { countsStores: true, blockSize: worker.blockSize }) }
  removeWorker(worker: Worker): void { this.#o.map.removeWorker(worker.slot as WorkerSlot) }
  start(_w: Worker, _p: EventsPlace): WorkerEvents { return { status: () => ({ state: 'absent', lastSequence: null, gaps: 0, restarts: 0 }), workerDown: () => undefined, stop: () => Promise.resolve() } }
  close(): Promise<void> { return Promise.resolve() }
}
