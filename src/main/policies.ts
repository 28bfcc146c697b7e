import type { Config } from '../config/schema.ts'
import { createProfile, defaultProfile, type ProfileChoice } from '../routing/catalogue.ts'
import type { PolicyPlugin } from '../routing/policy.ts'
import { TierCredit } from '../routing/tier-credit.ts'
import { loadPlugins } from './plugins.ts'

/** Checks what the schema cannot: every profile and plugin of the config. Throws RouterError CONFIG_INVALID. */
export async function checkPolicies(config: Config): Promise<void> {
  await checkedPlugins(config)
}

/** The policy plugins of the config, with which each of its profiles can be made. Throws as `checkPolicies`. */
export async function checkedPlugins(config: Config): Promise<readonly PolicyPlugin[]> {
  const more = await loadPlugins(config)
  for (const model of config.pools.map((pool) => pool.model).concat('')) {
    createProfile(profileChoice(config, model), {
      context: { clock: () => 0, random: () => 0 },
      workers: 1,
      fault: () => undefined,
      more,
    })
  }
  return more
}

export function profileChoice(config: Config, model: string): string | ProfileChoice {
  return config.pools.find((pool) => pool.model === model)?.profile ?? config.profile ?? defaultProfile
}

/** What the pool says of its tiers goes before what holds for all. */
export function tierCredit(config: Config, model: string): TierCredit {
  return new TierCredit({ ...config.tiers, ...config.pools.find((pool) => pool.model === model)?.tiers })
}
