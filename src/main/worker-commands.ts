import { checkAddedWorker, checkWorkerChange } from '../config/load.ts'
import { RouterError } from '../errors.ts'
import type { Pools } from '../workers/pool.ts'
import type { Worker } from '../workers/worker.ts'
import { checkWorkerTls, type WorkerTls } from '../workers/connect.ts'
import type { FleetKeeper } from './keeper.ts'

export interface CommandedParts {
  readonly keeper: FleetKeeper
  readonly pools: Pools
  readonly view: (worker: Worker) => object
}

/** What operators may do with the fleet: POST, PATCH and DELETE /admin/workers. */
export function workerCommands({ keeper, pools, view }: CommandedParts) {
  return {
    /** @throws RouterError BODY_INVALID, MODEL_NOT_FOUND, WORKER_EXISTS */
    add(given: unknown): readonly object[] {
      const { pool: model, ...worker } = checkAddedWorker(given)
      const pool = model === undefined ? null : pools.target(model)?.pool
      if (pool === undefined) throw new RouterError('MODEL_NOT_FOUND', `There is no pool "${model}"`, { param: 'pool' })
      if (worker.tls !== undefined) checkFiles(worker.tls)
      return keeper.add(pool, worker).workers.map(view)
    },
    /** @throws RouterError BODY_INVALID, WORKER_NOT_FOUND, WORKER_LEAVING */
    change(id: string, given: unknown): readonly object[] {
      const { state, labels } = checkWorkerChange(given)
      const workers = keeper.named(id)
      if (state !== undefined) keeper.setDraining(id, state === 'draining')
      if (labels !== undefined) for (const worker of workers) worker.labels = labels
      return workers.map(view)
    },
    /** @throws RouterError WORKER_NOT_FOUND */
    remove: (id: string, force: boolean): readonly object[] => keeper.remove(id, force).map(view),
  }
}

/** Throws RouterError BODY_INVALID. */
function checkFiles(tls: WorkerTls): void {
  try {
    checkWorkerTls(tls)
  } catch (error) {
    if (!(error instanceof RouterError)) throw error
    throw new RouterError('BODY_INVALID', error.message, { param: 'tls', cause: error })
  }
}
