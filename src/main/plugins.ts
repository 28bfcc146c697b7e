import { statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { isAbsolute, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { Config, ProfileConfig } from '../config/schema.ts'
import { RouterError } from '../errors.ts'
import type { PluginChoice } from '../routing/catalogue.ts'
import type { PolicyPlugin } from '../routing/policy.ts'
import { importPolicies } from '../routing/plugin-module.ts'
import { tryPlugins } from './plugin-trial.ts'

/** Trials that went well, by URL and parameters; a module's next version has another URL. */
const tried = new Set<string>()

/**
 * The policy plugins of the config, each tried on a thread before it is let in. A file that has changed since is loaded
 * anew, one that has not is the same module. Throws RouterError PLUGIN_INVALID.
 */
export async function loadPlugins(config: Config): Promise<PolicyPlugin[]> {
  const parameters = choicesOf(config).map(({ type, parameters = {} }) => ({ type, parameters }))
  const found: PolicyPlugin[] = []
  for (const place of config.plugins) {
    const url = versioned(urlOf(place))
    const order = { url, parameters }
    const name = JSON.stringify(order)
    if (!tried.has(name)) await tryPlugins(place, order, config.pluginLimits.trialMs)
    tried.add(name)
    const exported = await importPolicies(url)
    if (exported.length === 0)
      throw new RouterError('PLUGIN_INVALID', `plugins: "${place}" exports no policy; export what definePolicy returns`)
    found.push(...exported)
  }
  return [...new Set(found)]
}

/** Files that hold the config's plugins, those of packages left out. */
export function pluginFiles(config: Config): string[] {
  return config.plugins.filter((place) => isAbsolute(place))
}

/** Every choice of a plugin in the config's profiles. */
function choicesOf(config: Config): PluginChoice[] {
  const chosen = [config.profile, ...config.pools.map(({ profile }) => profile)]
  return chosen.flatMap((profile) => (typeof profile === 'object' && !('from' in profile) ? partsOf(profile) : []))
}

type ProfileParts = Exclude<ProfileConfig, string | { readonly from: string }>

function partsOf({ filters = [], fallbacks = [], scorers = [], picker }: ProfileParts): PluginChoice[] {
  const used = fallbacks.flatMap(({ use }) => (typeof use === 'object' ? partsOf(use) : []))
  return [...filters, ...fallbacks, ...used, ...scorers, ...(picker === undefined ? [] : [picker])]
}

/** Packages are looked for beside Warmroute first, then from the working directory, as when Warmroute is installed globally. */
function urlOf(place: string): string {
  try {
    if (isAbsolute(place)) return pathToFileURL(place).href
    try {
      return import.meta.resolve(place)
    } catch {
      return pathToFileURL(createRequire(join(process.cwd(), 'package.json')).resolve(place)).href
    }
  } catch (cause) {
    throw cannotLoad(place, cause)
  }
}

/** A module is loaded once by URL; the file's age makes a changed one another. */
function versioned(url: string): string {
  if (!url.startsWith('file:')) return url
  try {
    return `${url}?v=${statSync(fileURLToPath(url)).mtimeMs}`
  } catch (cause) {
    throw cannotLoad(url, cause)
  }
}

function cannotLoad(place: string, cause: unknown): RouterError {
  const text = cause instanceof Error ? cause.message : String(cause)
  return new RouterError('PLUGIN_INVALID', `plugins: cannot load "${place}": ${text}`, { cause })
}
