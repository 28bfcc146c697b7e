import type { KeyScope } from '../kv/keys.ts'
import { createProfile, type ProfileChoice } from '../routing/catalogue.ts'
import type { TierSettings } from '../routing/tier-credit.ts'
import type { PolicyPlugin } from '../routing/policy.ts'
import { mix32, seededRandom, type Random } from '../simulator/random.ts'
import type { Agenda } from './agenda.ts'
import { Replicated, type ReplicasOptions } from './replicated.ts'
import { Routed, type Sharing } from './routed.ts'

export interface RouterOptions {
  /** From a step's end until the router has applied its KV events. Default 1 ms. */
  readonly eventDelayMs?: number
  /** Between two readings of the engines' load, and until the router has counted what came of answers. Default 500 ms. */
  readonly loadIntervalMs?: number
  /** So many workers, the first ones, publish no events; what they hold is concluded from what they are sent. */
  readonly withoutEvents?: number
  /** What the router takes the capacity of those to be, as a multiple of what it is. Default 1. */
  readonly capacityFactor?: number
  /** Whether a prompt counts as coming on its worker once it was sent. Default: yes. */
  readonly predictsOnRoute?: boolean
  /** Several replicas of the router, each request through any of them; absent: one. */
  readonly replicas?: ReplicasOptions
}

export interface RouterSetup {
  readonly options: RouterOptions
  readonly policy: string | ProfileChoice
  readonly plugins?: readonly PolicyPlugin[]
  readonly tiers?: TierSettings
  readonly workers: number
  readonly capacityBlocks: number
  readonly scope: KeyScope
  readonly agenda: Agenda
  readonly clock: () => number
  readonly seed: number
}

/** A router, or several replicas of it, made of the parts that the request path has. CONFIG_INVALID for an unknown policy. */
export function createRouter(setup: RouterSetup): Routed | Replicated {
  const { options, workers, scope, seed, agenda, clock } = setup
  const { withoutEvents = 0, capacityFactor = 1, predictsOnRoute = true, replicas } = options
  const routed = (random: Random, sharing?: Sharing): Routed =>
    new Routed({
      ...{ workers, withoutEvents, scope, clock, profile: profileOf(setup, random), predictsOnRoute },
      capacityBlocks: Math.max(1, Math.round(setup.capacityBlocks * capacityFactor)),
      ...(setup.tiers === undefined ? {} : { tiers: setup.tiers }),
      ...(sharing === undefined ? {} : { sharing }),
    })
  if (replicas === undefined) return routed(seededRandom(seed))
  return new Replicated({
    ...replicas,
    ...{ agenda, clock, random: seededRandom(seed) },
    create: (index, sharing) => routed(seededRandom(mix32(seed + index)), sharing),
  })
}

function profileOf({ policy, plugins, workers, clock }: RouterSetup, random: Random) {
  return createProfile(policy, {
    context: { clock, random: () => random.next() },
    workers,
    ...(plugins === undefined ? {} : { more: plugins }),
    fault: (plugin, cause) => {
      throw new Error(`The policy plugin "${plugin}" failed`, { cause })
    },
  })
}
