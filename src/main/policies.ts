import type { Config, ProfileConfig } from '../config/schema.ts'
import { RouterError } from '../errors.ts'
import { createProfile, defaultProfile, type ProfileChoice } from '../routing/catalogue.ts'
import { translateEndpointPickerConfig, type TranslatedProfile } from '../routing/llm-d/endpoint-picker-config.ts'
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
  const faults = new Set<string>()
  for (const model of config.pools.map((pool) => pool.model).concat('')) {
    try {
      const choice = profileChoice(config, model)
      createProfile(choice, {
        context: { clock: () => 0, random: () => 0 },
        workers: 1,
        fault: () => undefined,
        more,
        place: profilePlace(config, model),
      })
    } catch (error) {
      if (!(error instanceof RouterError)) throw error
      faults.add(error.message)
    }
  }
  if (faults.size > 0) throw new RouterError('CONFIG_INVALID', [...faults].join('\n'))
  return more
}

export function profileChoice(config: Config, model: string): string | ProfileChoice {
  const profile = configuredProfile(config, model)
  return typeof profile === 'string' || !('from' in profile) ? profile : translated(profile).profile
}

/** What has to be said of a profile that another program's file gives: what of it the router does itself, and the like. */
export function profileNotes(config: Config, model: string): readonly string[] {
  const profile = configuredProfile(config, model)
  return typeof profile === 'string' || !('from' in profile)
    ? []
    : translated(profile).notes.map((note) => `${profile.from}: ${note}`)
}

/** All of them, each once. */
export function policyNotes(config: Config): string[] {
  const models = config.pools.map((pool) => pool.model).concat('')
  return [...new Set(models.flatMap((model) => profileNotes(config, model)))]
}

/** Files that profiles are given by. */
export function profileFiles({ profile, pools }: Config): string[] {
  const profiles = [profile, ...pools.map((pool) => pool.profile)].filter((each) => typeof each === 'object')
  return [...new Set(profiles.flatMap((each) => ('from' in each ? [each.from] : [])))]
}

/** Where the profile of a model's pool stands in the config. */
function profilePlace({ pools }: Config, model: string): string {
  const index = pools.findIndex((pool) => pool.model === model && pool.profile !== undefined)
  return index === -1 ? 'profile' : `pools[${index}].profile`
}

function configuredProfile(config: Config, model: string): ProfileConfig {
  return config.pools.find((pool) => pool.model === model)?.profile ?? config.profile ?? defaultProfile
}

function translated({ document, from }: { readonly document?: unknown; readonly from: string }): TranslatedProfile {
  return translateEndpointPickerConfig(document, from)
}

/** What the pool says of its tiers goes before what holds for all. */
export function tierCredit(config: Config, model: string): TierCredit {
  return new TierCredit({ ...config.tiers, ...config.pools.find((pool) => pool.model === model)?.tiers })
}
