import type { BlockStored, KvEvent } from './kv-event.ts'
import type { GenerationRequest } from './sequence.ts'

/**
 * Ways in which engines, or how they are set up, do or tell other than a router is made to believe:
 *
 *  - `salt-ignored`: the cache salt of requests has no effect
 *  - `salt-untold`: it has, but events do not tell it
 *  - `lora-numbered`: events tell adapters by number only, as older engines do
 *  - `lora-renamed`: they tell them under another name than requests use
 *  - `block-size`: they say that blocks have twice the size that they have
 *  - `removals-untold`: they tell of no removal, as some connectors do
 *  - `silent`: nothing is published, on a connection that stands
 */
export const misreports = [
  'salt-ignored',
  'salt-untold',
  'lora-numbered',
  'lora-renamed',
  'block-size',
  'removals-untold',
  'silent',
] as const

export type Misreport = (typeof misreports)[number]

/** A request as an engine that misreports takes it. */
export function takenAs(request: GenerationRequest, faults: readonly Misreport[]): GenerationRequest {
  if (request.cacheSalt === undefined || !faults.includes('salt-ignored')) return request
  const taken: { -readonly [Key in keyof GenerationRequest]: GenerationRequest[Key] } = { ...request }
  delete taken.cacheSalt
  return taken
}

/** Events as it tells them. */
export function toldAs(events: readonly KvEvent[], faults: readonly Misreport[]): readonly KvEvent[] {
  if (faults.length === 0) return events
  if (faults.includes('silent')) return []
  const told = faults.includes('removals-untold') ? events.filter(({ kind }) => kind === 'stored') : events
  return told.map((event) => (event.kind === 'stored' ? storedAs(event, faults) : event))
}

function storedAs(event: BlockStored, faults: readonly Misreport[]): BlockStored {
  const named = event.loraName !== null
  return {
    ...event,
    ...(faults.includes('salt-untold') ? { cacheSalt: null } : {}),
    ...(named && faults.includes('lora-renamed') ? { loraName: `adapter-${event.loraId ?? 0}` } : {}),
    ...(named && faults.includes('lora-numbered') ? { loraName: null } : {}),
    ...(faults.includes('block-size') ? { blockSize: 2 * event.blockSize } : {}),
  }
}
