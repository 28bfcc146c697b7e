import { createRequire } from 'node:module'
import { isAbsolute, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Config } from '../config/schema.ts'
import { RouterError } from '../errors.ts'
import { createProfile, defaultProfile, type ProfileChoice } from '../routing/catalogue.ts'
import type { PolicyPlugin } from '../routing/policy.ts'
import { TierCredit } from '../routing/tier-credit.ts'

/** Checks what the schema cannot: every profile and plugin of the config. Throws RouterError CONFIG_INVALID. */
export async function checkPolicies(config: Config): Promise<void> {
  await checkedPlugins(config)
}

/** The policy plugins of the config, with which each of its profiles can be made. Throws as `checkPolicies`. */
export async function checkedPlugins(config: Config): Promise<readonly PolicyPlugin[]> {
  const more = await loadPlugins(config.plugins)
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

/** Every policy plugin that the modules export, by default or by name. */
async function loadPlugins(places: readonly string[]): Promise<PolicyPlugin[]> {
  const found: PolicyPlugin[] = []
  for (const place of places) {
    let module: Record<string, unknown>
    try {
      module = (await import(pluginUrl(place))) as Record<string, unknown>
    } catch (cause) {
      throw new RouterError(
        'PLUGIN_INVALID',
        `plugins: cannot load "${place}": ${cause instanceof Error ? cause.message : String(cause)}`,
        { cause },
      )
    }
    const exported = Object.values(module).flat().filter(isPolicyPlugin)
    if (exported.length === 0)
      throw new RouterError('PLUGIN_INVALID', `plugins: "${place}" exports no policy; export what definePolicy returns`)
    found.push(...exported)
  }
  return [...new Set(found)]
}

/** Packages are looked for beside Warmroute first, then from the working directory, as when Warmroute is installed globally. */
function pluginUrl(place: string): string {
  if (isAbsolute(place)) return pathToFileURL(place).href
  try {
    return import.meta.resolve(place)
  } catch {
    return pathToFileURL(createRequire(join(process.cwd(), 'package.json')).resolve(place)).href
  }
}

function isPolicyPlugin(value: unknown): value is PolicyPlugin {
  if (typeof value !== 'object' || value === null) return false
  const { kind, type, create } = value as Partial<PolicyPlugin>
  return (
    (kind === 'filter' || kind === 'scorer' || kind === 'picker') &&
    typeof type === 'string' &&
    typeof create === 'function'
  )
}
