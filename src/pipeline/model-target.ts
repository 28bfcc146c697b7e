import { mayUse, requireModel, type Caller } from '../admission/caller.ts'
import { RouterError } from '../errors.ts'
import type { ModelTarget, Pools } from '../workers/pool.ts'

/** What an error repeats of a name that a client made up. */
const shownCharacters = 200

/**
 * What the model that a caller names stands for. `optional`: without a name it is the only model that is served.
 * @throws RouterError BODY_INVALID, NOT_READY, MODEL_NOT_FOUND, MODEL_NOT_ALLOWED
 */
export function modelTarget(model: string, caller: Caller, pools: Pools, optional: boolean): ModelTarget {
  const target = model === '' ? onlyTarget(pools, optional) : pools.target(model)
  if (target !== null) {
    requireModel(caller, model, target.pool.model)
    return target
  }
  if (pools.forming) {
    throw new RouterError('NOT_READY', 'No worker has told its model yet; try again', { retryAfterSeconds: 1 })
  }
  const known = pools.names().filter(({ name, pool }) => mayUse(caller, name) || mayUse(caller, pool.model))
  const shown = model.length > shownCharacters ? `${model.slice(0, shownCharacters)}…` : model
  throw new RouterError(
    'MODEL_NOT_FOUND',
    `The model "${shown}" does not exist. Known models: ${known.map(({ name }) => name).join(', ')}`,
    { param: 'model' },
  )
}

function onlyTarget(pools: Pools, optional: boolean): ModelTarget {
  const [only, second] = pools.list()
  if (optional && only !== undefined && second === undefined) return { pool: only, adapter: null }
  throw new RouterError('BODY_INVALID', '"model" is missing', { param: 'model' })
}
