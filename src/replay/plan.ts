import type { ReplayJob } from './job.ts'
import { highestLoad } from './search.ts'
import { meanOf } from './statistics.ts'
import type { TierOptions } from './tiers.ts'
import type { ReplayResult } from './summary.ts'

export interface NamedPolicy {
  readonly name: string
  readonly policy: ReplayJob['policy']
  /** Caches beside the GPUs' that it is played with. */
  readonly tiers?: TierOptions
}

/** What is compared: every policy at every load, once for each seed. */
export interface ReplayPlan {
  readonly policies: readonly NamedPolicy[]
  /** Users at once of a closed loop, or how many times as fast as recorded an open one is. */
  readonly loadKind: 'users' | 'rate'
  readonly loads: readonly number[]
  readonly seeds: readonly number[]
  readonly base: Omit<ReplayJob, 'policy' | 'seed'>
  /** Whether the highest load within the SLO is looked for, beginning with the first of the loads. */
  readonly findsLimit: boolean
  /** Played over HTTP: at this URL, or where that is null with engines and a router of its own. */
  readonly realTime?: { readonly url: string | null; readonly speed: number }
}

export interface PlayedLoad {
  readonly policy: string
  readonly load: number
  /** One for each seed. */
  readonly runs: readonly ReplayResult[]
}

export interface PolicyLimit {
  readonly policy: string
  /** Highest load with so many requests within the SLO. */
  readonly load: number
}

export interface PlayedPlan {
  readonly played: readonly PlayedLoad[]
  readonly limits: readonly PolicyLimit[]
}

/** Share of requests within the SLO that the highest load must keep. */
export const limitGoal = 0.95
const limitPrecision = 0.02
const mostUsers = 100_000

export async function playPlan(plan: ReplayPlan, run: (job: ReplayJob) => Promise<ReplayResult>): Promise<PlayedPlan> {
  const { policies, loads, seeds, findsLimit } = plan
  const at = (policy: NamedPolicy, load: number): Promise<ReplayResult[]> =>
    Promise.all(seeds.map((seed) => run(jobOf(plan, policy, load, seed))))
  const played = await Promise.all(
    policies.flatMap((policy) =>
      loads.map(async (load) => ({ policy: policy.name, load, runs: await at(policy, load) })),
    ),
  )
  const limits: PolicyLimit[] = []
  for (const policy of findsLimit ? policies : []) {
    const load = await highestLoad({
      inSlo: async (load) => meanOf((await at(policy, load)).map(({ inSlo }) => inSlo)),
      ...{ goal: limitGoal, start: loads[0] ?? 1, precision: limitPrecision, most: mostUsers },
      whole: plan.loadKind === 'users',
    })
    limits.push({ policy: policy.name, load })
  }
  return { played, limits }
}

function jobOf({ base, loadKind }: ReplayPlan, { policy, tiers }: NamedPolicy, load: number, seed: number): ReplayJob {
  const amount = loadKind === 'users' ? { users: load } : { rate: load }
  return { ...base, policy, seed, load: { ...base.load, ...amount }, ...(tiers === undefined ? {} : { tiers }) }
}
