import Type from 'typebox'
import { definePolicy, type Dispatch, type PolicyFleet } from '../policy.ts'

/** Workers of one routing key, the older one first. */
interface Assignment {
  readonly serials: readonly number[]
  readonly usedMs: number
}

const workersOfKey = 2

/**
 * sglang-router's `manual`: a routing key stays with the worker that it was given first, and is given another only while that
 * one is away; a key remembers two. Requests without a key go anywhere.
 */
export const sglangManual = definePolicy({
  kind: 'picker',
  type: 'sglang-manual',
  description: 'sglang-router’s manual: a routing key stays with the worker that it was given.',
  parameters: Type.Object(
    {
      header: Type.String({ description: 'Header with the routing key.', minLength: 1, default: 'x-smg-routing-key' }),
      assignmentMode: Type.Union([Type.Literal('random'), Type.Literal('min_load'), Type.Literal('min_group')], {
        description:
          'Who gets a new key: anybody, the worker with the fewest requests, or with the fewest keys in flight (--assignment-mode).',
        default: 'random',
      }),
      maxIdleSecs: Type.Number({
        description: 'A key that is not used for so long is forgotten (--max-idle-secs).',
        exclusiveMinimum: 0,
        default: 14_400,
      }),
      maxKeys: Type.Integer({
        description: 'Keys that are remembered; beyond that the least recently used goes.',
        minimum: 1,
        default: 1_000_000,
      }),
    },
    { additionalProperties: false },
  ),
  create({ header, assignmentMode, maxIdleSecs, maxKeys }, { clock, random }) {
    /** The least recently used first. */
    const assignments = new Map<string, Assignment>()
    const underway = new WeakMap<Dispatch, string>()
    const groups = new KeysInFlight()
    const name = header.toLowerCase()
    /** What the last choice went by, until it is acted upon. */
    let asked: { readonly key: string; readonly serial: number } | null = null

    const fewest = (fleet: PolicyFleet, keep: Uint8Array): number => {
      let chosen = -1
      let least = Infinity
      let equal = 0
      for (let i = 0; i < fleet.count; i++) {
        if (keep[i] !== 1) continue
        const serial = fleet.serials[i] as number
        const load =
          assignmentMode === 'random'
            ? 0
            : assignmentMode === 'min_load'
              ? (fleet.requests[i] as number)
              : groups.of(serial)
        if (load < least) equal = 0
        if (load > least || random() * ++equal >= 1) continue
        chosen = i
        least = load
      }
      return chosen
    }

    /** Index of the first of the key's workers that is there; −1 for none. */
    const homeOf = (key: string, fleet: PolicyFleet, keep: Uint8Array): number => {
      for (const serial of assignments.get(key)?.serials ?? []) {
        const place = fleet.serials.indexOf(serial)
        if (place !== -1 && place < fleet.count && keep[place] === 1) return place
      }
      return -1
    }

    const trim = (nowMs: number): void => {
      for (const [key, { usedMs }] of assignments) {
        if (assignments.size <= maxKeys && nowMs - usedMs < maxIdleSecs * 1000) return
        assignments.delete(key)
      }
    }

    return {
      pick(request, fleet, _match, _totals, keep) {
        const key = request.header(name)
        const known = key === null ? -1 : homeOf(key, fleet, keep)
        const place = known === -1 ? fewest(fleet, keep) : known
        asked = key === null || key === '' ? null : { key, serial: fleet.serials[place] as number }
        return place
      },
      onDispatched(dispatch) {
        // A choice that was only asked for, or a dispatch of another replica, assigns nothing.
        if (asked?.serial !== dispatch.serial) return
        const { key } = asked
        asked = null
        const before = assignments.get(key)?.serials ?? []
        const serials = before.includes(dispatch.serial) ? before : [...before, dispatch.serial].slice(-workersOfKey)
        const nowMs = clock()
        assignments.delete(key)
        assignments.set(key, { serials, usedMs: nowMs })
        trim(nowMs)
        underway.set(dispatch, key)
        groups.add(dispatch.serial, key, 1)
      },
      onFinished(dispatch) {
        const key = underway.get(dispatch)
        if (key !== undefined && underway.delete(dispatch)) groups.add(dispatch.serial, key, -1)
      },
    }
  },
})

/** Distinct keys of the requests in flight, by worker. */
class KeysInFlight {
  readonly #counts = new Map<number, Map<string, number>>()

  of(serial: number): number {
    return this.#counts.get(serial)?.size ?? 0
  }

  add(serial: number, key: string, change: 1 | -1): void {
    let keys = this.#counts.get(serial)
    if (keys === undefined) this.#counts.set(serial, (keys = new Map<string, number>()))
    const count = (keys.get(key) ?? 0) + change
    if (count > 0) keys.set(key, count)
    else keys.delete(key)
    if (keys.size === 0) this.#counts.delete(serial)
  }
}
