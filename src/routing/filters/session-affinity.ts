import Type from 'typebox'
import { definePolicy } from '../policy.ts'

interface Binding {
  serial: number
  untilMs: number
}

/**
 * Keeps a session on the worker that had its last request, also where another replica of the router sent it there. Hard:
 * as long as that worker can be chosen at all. Soft: as long as its queue is not longer than the shortest by more than
 * `leadTokens`. A session whose worker is gone, or too busy, is bound anew to the one that takes its request.
 */
export const sessionAffinity = definePolicy({
  kind: 'filter',
  type: 'session-affinity',
  reason: 'session_elsewhere',
  description: 'Keeps a session on the worker that had its last request.',
  parameters: Type.Object(
    {
      mode: Type.Union([Type.Literal('soft'), Type.Literal('hard')], {
        description: 'Soft: only while that worker’s queue is not too long.',
        default: 'soft',
      }),
      leadTokens: Type.Integer({
        description: 'Soft: outstanding prefill tokens that the worker may have beyond the least.',
        minimum: 0,
        default: 16_384,
      }),
      ttlSeconds: Type.Number({
        description: 'A session that sends nothing for so long is forgotten.',
        exclusiveMinimum: 0,
        default: 3600,
      }),
      bindings: Type.Integer({
        description: 'Sessions remembered; the one that was silent longest goes first.',
        minimum: 1,
        maximum: 10_000_000,
        default: 65_536,
      }),
    },
    { additionalProperties: false },
  ),
  create({ mode, leadTokens, ttlSeconds, bindings: most }, { clock }) {
    const bindings = new Map<string, Binding>()
    return {
      filter(request, fleet, _match, keep) {
        const { session } = request
        const binding = session === null ? undefined : bindings.get(session)
        if (binding === undefined || binding.untilMs < clock()) return
        let bound = -1
        let least = Infinity
        for (let i = 0; i < fleet.count; i++) {
          if (keep[i] !== 1) continue
          least = Math.min(least, fleet.prefillTokens[i] as number)
          if (fleet.serials[i] === binding.serial) bound = i
        }
        if (bound === -1) return
        if (mode === 'soft' && (fleet.prefillTokens[bound] as number) > least + leadTokens) return
        for (let i = 0; i < fleet.count; i++) if (i !== bound) keep[i] = 0
      },
      onDispatched({ session, serial }) {
        if (session === null) return
        bindings.delete(session)
        bindings.set(session, { serial, untilMs: clock() + ttlSeconds * 1000 })
        if (bindings.size <= most) return
        const [oldest] = bindings.keys()
        if (oldest !== undefined) bindings.delete(oldest)
      },
    }
  },
})
