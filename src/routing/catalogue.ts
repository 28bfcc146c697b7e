import { RouterError } from '../errors.ts'
import { hint } from '../faults.ts'
import { dynamoCost } from './dynamo/cost.ts'
import { softmax } from './dynamo/softmax.ts'
import { allSaturated } from './fallbacks/all-saturated.ts'
import { shortMatch } from './fallbacks/short-match.ts'
import { staleLoad } from './fallbacks/stale-load.ts'
import { adapterLoaded } from './filters/adapter-loaded.ts'
import { kvMemory } from './filters/kv-memory.ts'
import { label } from './filters/label.ts'
import { matchWait } from './filters/match-wait.ts'
import { pinnedWorker } from './filters/pinned-worker.ts'
import { requestLimit } from './filters/request-limit.ts'
import { sessionAffinity } from './filters/session-affinity.ts'
import { bestScore } from './pickers/best-score.ts'
import { llmDPlugins } from './llm-d/plugins.ts'
import { filledParameters, parameterFaults } from './parameters.ts'
import { boundedHash } from './pickers/bounded-hash.ts'
import { powerOfTwo } from './pickers/power-of-two.ts'
import { randomPicker } from './pickers/random.ts'
import { roundRobin } from './pickers/round-robin.ts'
import { PluginGuard, type PluginFault, type PluginLimits } from './plugin-guard.ts'
import type { PolicyContext, PolicyPlugin } from './policy.ts'
import { Profile } from './profile.ts'
import { labelPreference } from './scorers/label-preference.ts'
import { leastRequests } from './scorers/least-requests.ts'
import { leastTokens } from './scorers/least-tokens.ts'
import { predictedTtft } from './scorers/predicted-ttft.ts'
import { prefix } from './scorers/prefix.ts'
import { sglangCacheAware } from './sglang/cache-aware.ts'
import { sglangConsistentHash } from './sglang/consistent-hash.ts'
import { sglangManual } from './sglang/manual.ts'
import { sglangPowerOfTwo } from './sglang/power-of-two.ts'
import { sglangPrefixHash } from './sglang/prefix-hash.ts'

/** Every built-in plugin. A new policy adds a file and a line here. */
export const plugins: readonly PolicyPlugin[] = [
  requestLimit,
  kvMemory,
  matchWait,
  sessionAffinity,
  label,
  adapterLoaded,
  pinnedWorker,
  shortMatch,
  staleLoad,
  allSaturated,
  predictedTtft,
  leastRequests,
  leastTokens,
  prefix,
  labelPreference,
  dynamoCost,
  bestScore,
  boundedHash,
  randomPicker,
  roundRobin,
  powerOfTwo,
  sglangCacheAware,
  sglangPowerOfTwo,
  softmax,
  sglangPrefixHash,
  sglangConsistentHash,
  sglangManual,
  ...llmDPlugins,
]

export interface PluginChoice {
  readonly type: string
  readonly weight?: number
  readonly parameters?: Readonly<Record<string, unknown>>
}

export interface FallbackChoice extends PluginChoice {
  /** The profile that chooses where it applies. */
  readonly use?: string | ProfileChoice
}

export interface ProfileChoice {
  readonly name?: string
  readonly filters?: readonly PluginChoice[]
  readonly fallbacks?: readonly FallbackChoice[]
  readonly scorers?: readonly PluginChoice[]
  readonly picker?: PluginChoice
}

/** Built-in profiles. `kv-aware` is the default. */
export const profiles: Readonly<Record<string, ProfileChoice>> = {
  'kv-aware': {
    filters: [{ type: 'adapter-loaded' }],
    scorers: [{ type: 'predicted-ttft' }],
    picker: { type: 'best-score' },
  },
  session: {
    filters: [{ type: 'adapter-loaded' }, { type: 'session-affinity' }],
    scorers: [{ type: 'predicted-ttft' }],
    picker: { type: 'best-score' },
  },
  'consistent-hash': { picker: { type: 'bounded-hash' } },
  'round-robin': { picker: { type: 'round-robin' } },
  random: { picker: { type: 'random' } },
  'power-of-two': { scorers: [{ type: 'least-requests' }], picker: { type: 'power-of-two' } },
  'least-loaded': {
    scorers: [{ type: 'least-requests' }],
    picker: { type: 'best-score', parameters: { tieWithin: 0, tieMatchShare: 1 } },
  },
  'least-tokens': {
    scorers: [{ type: 'least-tokens' }],
    picker: { type: 'best-score', parameters: { tieWithin: 0, tieMatchShare: 1 } },
  },
  sglang: { picker: { type: 'sglang-cache-aware' } },
  'sglang-power-of-two': { picker: { type: 'sglang-power-of-two' } },
  dynamo: {
    filters: [{ type: 'adapter-loaded' }],
    scorers: [{ type: 'dynamo-cost' }],
    picker: { type: 'softmax' },
  },
  'sglang-prefix-hash': { picker: { type: 'sglang-prefix-hash' } },
  'sglang-consistent-hash': { picker: { type: 'sglang-consistent-hash' } },
  'sglang-manual': { picker: { type: 'sglang-manual' } },
  // What llm-d's endpoint picker does without a configuration.
  'llm-d': {
    scorers: [
      { type: 'queue-scorer', weight: 2 },
      { type: 'kv-cache-utilization-scorer', weight: 2 },
      { type: 'prefix-cache-scorer', weight: 3 },
    ],
    picker: { type: 'max-score-picker' },
  },
}

/** sglang-router's names for the same policies (decision 29). */
export const profileAliases: Readonly<Record<string, string>> = {
  round_robin: 'round-robin',
  power_of_two: 'power-of-two',
  cache_aware: 'kv-aware',
  prefix_hash: 'sglang-prefix-hash',
  consistent_hash: 'sglang-consistent-hash',
  consistent_hashing: 'sglang-consistent-hash',
  manual: 'sglang-manual',
}

export const defaultProfile = 'kv-aware'

/** Chooses where a fallback applies and names no other. */
export const fallbackProfile = 'least-loaded'

/** Where nothing else is said, what a plugin may do before it is left out for a while. */
export const pluginLimits: PluginLimits = { stallMs: 20, faults: 5, pauseMs: 30_000 }

export interface ProfileOptions {
  /** Without a wall clock the monotonic one stands in for it. */
  readonly context: Omit<PolicyContext, 'wallClock'> & Partial<Pick<PolicyContext, 'wallClock'>>
  /** Most candidates that a decision can have. */
  readonly workers: number
  readonly fault: PluginFault
  /** Plugins from outside, beside the built-in ones. */
  readonly more?: readonly PolicyPlugin[]
  readonly limits?: PluginLimits
  /** Where the choice stands in a config, for messages. */
  readonly place?: string
  /** How long each call of a plugin took. */
  readonly observe?: (plugin: string, ms: number) => void
}

type Made<Kind extends PolicyPlugin['kind']> = ReturnType<Extract<PolicyPlugin, { kind: Kind }>['create']>

/**
 * A profile instance from its name or its parts. Throws RouterError CONFIG_INVALID, which names the place, the plugin and
 * the parameters at fault.
 */
export function createProfile(chosen: string | ProfileChoice, options: ProfileOptions): Profile {
  const known = [...plugins, ...(options.more ?? [])]
  const name = typeof chosen === 'string' ? (profileAliases[chosen] ?? chosen) : (chosen.name ?? 'custom')
  const choice = typeof chosen === 'string' ? profiles[name] : chosen
  if (choice === undefined) throw unknownProfile(name, options)
  const context: PolicyContext = { wallClock: options.context.clock, ...options.context }
  const guardOf = (type: string): PluginGuard =>
    new PluginGuard(type, {
      limits: limitsOf(type, options),
      clock: options.context.clock,
      observe: options.observe ?? (() => undefined),
      fault: options.fault,
    })
  const whole = options.place ?? (typeof chosen === 'string' ? name : (chosen.name ?? 'profile'))
  const make = <Kind extends PolicyPlugin['kind']>(kind: Kind, plugin: PluginChoice, part: string) => {
    const place = `${whole}.${part}`
    const found = foundPlugin(known, kind, plugin.type, place)
    return {
      guard: guardOf(plugin.type),
      plugin: found,
      made: created(found, plugin, context, place) as Made<Kind>,
    }
  }
  return new Profile(
    {
      name,
      filters: (choice.filters ?? []).map((filter, index) => {
        const { guard, plugin, made } = make('filter', filter, `filters[${index}]`)
        return { guard, filter: made, reason: plugin.reason ?? null }
      }),
      fallbacks: (choice.fallbacks ?? []).map((fallback, index) => {
        const { guard, plugin, made } = make('fallback', fallback, `fallbacks[${index}]`)
        const place = `${whole}.fallbacks[${index}].use`
        const use = createProfile(fallback.use ?? fallbackProfile, { ...options, place })
        return { guard, fallback: made, reason: plugin.reason, use }
      }),
      scorers: (choice.scorers ?? []).map((scorer, index) => {
        const { guard, made } = make('scorer', scorer, `scorers[${index}]`)
        return { guard, scorer: made, weight: scorer.weight ?? 1 }
      }),
      picker: pickerOf(make('picker', choice.picker ?? { type: 'best-score' }, 'picker')),
    },
    options.workers,
  )
}

function unknownProfile(name: string, { place }: ProfileOptions): RouterError {
  const known = [...Object.keys(profiles), ...Object.keys(profileAliases)]
  const where = place === undefined ? '' : `${place}: `
  return new RouterError(
    'CONFIG_INVALID',
    `${where}unknown policy "${name}"${hint(name, known)} Known: ${known.join(', ')}`,
  )
}

/** Of what is built in nothing stalls but the machine itself, and to leave it out would help nobody. */
function limitsOf(type: string, { limits = pluginLimits }: ProfileOptions): PluginLimits {
  return plugins.some((plugin) => plugin.type === type) ? { ...limits, stallMs: Infinity } : limits
}

function pickerOf({ guard, made }: { readonly guard: PluginGuard; readonly made: Made<'picker'> }) {
  return { guard, picker: made }
}

function foundPlugin<Kind extends PolicyPlugin['kind']>(
  known: readonly PolicyPlugin[],
  kind: Kind,
  type: string,
  place: string,
): Extract<PolicyPlugin, { kind: Kind }> {
  const isKind = (plugin: PolicyPlugin): plugin is Extract<PolicyPlugin, { kind: Kind }> => plugin.kind === kind
  const ofKind = known.filter(isKind)
  const plugin = ofKind.find((candidate) => candidate.type === type)
  if (plugin !== undefined) return plugin
  const types = ofKind.map((candidate) => candidate.type)
  const other = known.find((candidate) => candidate.type === type)
  const remedy = other === undefined ? hint(type, types) : `; it is a ${other.kind}.`
  throw new RouterError('CONFIG_INVALID', `${place}: no ${kind} named "${type}"${remedy} Known: ${types.join(', ')}`)
}

function created(
  plugin: PolicyPlugin,
  choice: PluginChoice,
  context: PolicyContext,
  place: string,
): Made<PolicyPlugin['kind']> {
  const parameters = filledParameters(plugin, choice.parameters)
  const at = `${place} ("${plugin.type}")`
  const faults = parameterFaults(plugin, parameters)
  if (faults.length > 0) throw new RouterError('CONFIG_INVALID', faults.map((fault) => `${at}: ${fault}`).join('\n'))
  try {
    return plugin.create(parameters, context)
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause)
    throw new RouterError('CONFIG_INVALID', `${at}: ${text}`, { cause })
  }
}
