import type { DecisionRecord } from '../routing/decisions.ts'
import type { Worker } from '../workers/worker.ts'
import type { Incoming, Prepared } from './incoming.ts'

/** The client's bytes; an alias that the engine does not know is replaced in them by the name that it does know. */
export function bodyFor({ incoming, read, target }: Prepared, worker: Worker): Buffer {
  const { model } = read.fields
  const range = read.ranges.get('model')
  const { models } = worker
  if (
    range === undefined ||
    target.adapter !== null ||
    models === undefined ||
    models.has(model) ||
    !models.has(target.pool.model)
  ) {
    return incoming.body
  }
  const name = Buffer.from(JSON.stringify(target.pool.model))
  return Buffer.concat([incoming.body.subarray(0, range.start), name, incoming.body.subarray(range.end)])
}

/** Headers that the router adds to an answer, as a flat list; what they tell of the fleet is for trusted clients only. */
export function addedHeaders(
  incoming: Incoming,
  worker: Worker,
  predictedCachedTokens: number,
  record: () => DecisionRecord | null,
): string[] {
  const headers = requestIdHeaders(incoming)
  if (!incoming.trusted) return headers
  headers.push('x-warmroute-worker', worker.id, 'x-warmroute-cached-tokens', String(predictedCachedTokens))
  if (!incoming.wantsDecision) return headers
  const decision = record()
  if (decision !== null) headers.push('x-warmroute-decision', asciiJson(decision))
  return headers
}

/** Anthropic's SDK reads `request-id`, all others `x-request-id`. */
export function requestIdHeaders({ requestId, endpoint }: Incoming): string[] {
  return endpoint.protocol.name === 'anthropic'
    ? ['x-request-id', requestId, 'request-id', requestId]
    : ['x-request-id', requestId]
}

/** JSON for a header, which may hold ASCII only: a model's name may be any text. */
function asciiJson(value: object): string {
  return JSON.stringify(value).replace(
    /[^\x20-\x7e]/g,
    (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}
