import Type from 'typebox'
import {
  definePolicy,
  type Dispatch,
  type PolicyContext,
  type PolicyFleet,
  type PolicyPlugin,
  type PolicyRequest,
} from '../policy.ts'

const parameters = Type.Object(
  {
    sessionIdConfig: Type.Object(
      {
        sources: Type.Array(
          Type.Object(
            { header: Type.String({ minLength: 1, description: 'Header with the id of the session.' }) },
            { additionalProperties: false },
          ),
          {
            description: 'Where the id of a session is looked for; the first that is there decides.',
            default: [{ header: 'x-session-id' }],
          },
        ),
        evictionTtlSeconds: Type.Number({
          description: 'A session that is not used for so long is forgotten.',
          exclusiveMinimum: 0,
          default: 300,
        }),
        evictionSweepSeconds: Type.Number({
          description: 'Not needed here: sessions are forgotten as others come.',
          exclusiveMinimum: 0,
          default: 10,
        }),
        maxSessions: Type.Integer({
          description: 'Sessions that are remembered; beyond that the least recently used goes. llm-d knows no limit.',
          minimum: 1,
          default: 1_000_000,
        }),
      },
      { additionalProperties: false, default: {} },
    ),
  },
  { additionalProperties: false },
)

interface Binding {
  readonly serial: number
  readonly usedMs: number
}

type SessionConfig = Type.Static<typeof parameters>['sessionIdConfig']

/** Which worker a session was bound to: the first that it was sent to, another only if that one was no candidate. */
class Sessions {
  readonly #headers: readonly string[]
  readonly #ttlMs: number
  readonly #most: number
  readonly #clock: () => number
  /** The least recently used first. */
  readonly #bindings = new Map<string, Binding>()
  /** The session of the last choice, and whether its worker was there, until it is acted upon. */
  #asked: { readonly id: string; readonly isBound: boolean; readonly isPresent: boolean } | null = null

  constructor({ sources, evictionTtlSeconds, maxSessions }: SessionConfig, { clock }: PolicyContext) {
    this.#headers = sources.map(({ header }) => header.toLowerCase())
    this.#ttlMs = evictionTtlSeconds * 1000
    this.#most = maxSessions
    this.#clock = clock
  }

  /** Index of the session's worker; −1 where it has none that is a candidate. */
  find(request: PolicyRequest, { count, serials }: PolicyFleet, keep: Uint8Array): number {
    this.#asked = null
    const id = this.#idOf(request)
    if (id === null) return -1
    const binding = this.#bindings.get(id)
    const isBound = binding !== undefined && this.#clock() - binding.usedMs <= this.#ttlMs
    const place = isBound ? serials.indexOf(binding.serial) : -1
    const isPresent = place !== -1 && place < count && keep[place] === 1
    this.#asked = { id, isBound, isPresent }
    return isPresent ? place : -1
  }

  dispatched({ serial }: Dispatch): void {
    if (this.#asked === null) return
    const { id, isBound, isPresent } = this.#asked
    this.#asked = null
    const nowMs = this.#clock()
    // A scorer may be outvoted: the session stays with its worker then.
    if (isBound && isPresent && this.#bindings.get(id)?.serial !== serial) return
    this.#bindings.delete(id)
    this.#bindings.set(id, { serial, usedMs: nowMs })
    for (const [oldest, { usedMs }] of this.#bindings) {
      if (this.#bindings.size <= this.#most && nowMs - usedMs <= this.#ttlMs) return
      this.#bindings.delete(oldest)
    }
  }

  #idOf(request: PolicyRequest): string | null {
    for (const name of this.#headers) {
      const id = request.header(name)?.trim()
      if (id !== undefined && id !== '') return id
    }
    return null
  }
}

/** llm-d's strategy `session_id`. The other one writes a header into answers, which a policy cannot. */
export const sessionPlugins: readonly PolicyPlugin[] = [
  definePolicy({
    kind: 'scorer',
    type: 'session-affinity-scorer',
    description: 'llm-d: 1 for the worker that the session is bound to, 0 for all others.',
    parameters,
    create({ sessionIdConfig }, context) {
      const sessions = new Sessions(sessionIdConfig, context)
      return {
        score(request, fleet, _match, out, keep) {
          const bound = sessions.find(request, fleet, keep)
          if (bound !== -1) out[bound] = 1
        },
        onDispatched: (dispatch) => sessions.dispatched(dispatch),
      }
    },
  }),
  definePolicy({
    kind: 'filter',
    type: 'session-affinity-filter',
    reason: 'session',
    description: 'llm-d: leaves only the worker that the session is bound to, while it is there.',
    parameters,
    create({ sessionIdConfig }, context) {
      const sessions = new Sessions(sessionIdConfig, context)
      return {
        filter(request, fleet, _match, keep) {
          const bound = sessions.find(request, fleet, keep)
          if (bound === -1) return
          keep.fill(0, 0, fleet.count)
          keep[bound] = 1
        },
        onDispatched: (dispatch) => sessions.dispatched(dispatch),
      }
    },
  }),
]
