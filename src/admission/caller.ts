import { RouterError } from '../errors.ts'

/** What a key may use; null is no limit. */
export interface CallerLimits {
  readonly requestsPerMinute: number | null
  /** Prompt and generated tokens together. */
  readonly tokensPerMinute: number | null
  /** Requests at a time, those that wait in the queue included. */
  readonly concurrency: number | null
}

/** Who sends a request, as its API key says; the id is safe to show in logs and metrics, the key is not kept. */
export interface Caller {
  readonly keyId: string
  /** Model names that it may use; null allows all. */
  readonly models: ReadonlySet<string> | null
  /** Priority class in the queue; lower goes first, as in vLLM. */
  readonly priority: number
  /** Share of the service among the keys of one class while they queue. */
  readonly weight: number
  readonly limits: CallerLimits
}

/** Every client of a router that has no API keys configured. */
export const anonymous: Caller = {
  keyId: 'anonymous',
  models: null,
  priority: 0,
  weight: 1,
  limits: { requestsPerMinute: null, tokensPerMinute: null, concurrency: null },
}

export function mayUse(caller: Caller, model: string): boolean {
  return caller.models === null || caller.models.has(model)
}

/**
 * A key that may use a model may use it by each of its names: `names` are the one that the client sent and the one that
 * it stands for. Throws RouterError MODEL_NOT_ALLOWED.
 */
export function requireModel(caller: Caller, ...names: readonly [string, ...string[]]): void {
  if (caller.models === null) return
  for (const name of names) if (caller.models.has(name)) return
  throw new RouterError('MODEL_NOT_ALLOWED', `This API key may not use the model "${names[0]}"`, { param: 'model' })
}
