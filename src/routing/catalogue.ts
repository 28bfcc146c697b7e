import type Type from 'typebox'
import { Value } from 'typebox/value'
import { RouterError } from '../errors.ts'
import { requestLimit } from './filters/request-limit.ts'
import { bestScore } from './pickers/best-score.ts'
import { powerOfTwo } from './pickers/power-of-two.ts'
import { randomPicker } from './pickers/random.ts'
import { roundRobin } from './pickers/round-robin.ts'
import type { FilterPlugin, PickerPlugin, PolicyContext, PolicyPlugin, ScorerPlugin } from './policy.ts'
import { Profile, type PluginFault } from './profile.ts'
import { leastRequests } from './scorers/least-requests.ts'
import { predictedTtft } from './scorers/predicted-ttft.ts'
import { prefix } from './scorers/prefix.ts'

/** Every built-in plugin. A new policy adds a file and a line here. */
export const plugins: readonly PolicyPlugin[] = [
  requestLimit,
  predictedTtft,
  leastRequests,
  prefix,
  bestScore,
  randomPicker,
  roundRobin,
  powerOfTwo,
]

export interface PluginChoice {
  readonly type: string
  readonly weight?: number
  readonly parameters?: Readonly<Record<string, unknown>>
}

export interface ProfileChoice {
  readonly name?: string
  readonly filters?: readonly PluginChoice[]
  readonly scorers?: readonly PluginChoice[]
  readonly picker?: PluginChoice
}

/** Built-in profiles. `kv-aware` is the default. */
export const profiles: Readonly<Record<string, ProfileChoice>> = {
  'kv-aware': { scorers: [{ type: 'predicted-ttft' }], picker: { type: 'best-score' } },
  'round-robin': { picker: { type: 'round-robin' } },
  random: { picker: { type: 'random' } },
  'power-of-two': { scorers: [{ type: 'least-requests' }], picker: { type: 'power-of-two' } },
  'least-loaded': {
    scorers: [{ type: 'least-requests' }],
    picker: { type: 'best-score', parameters: { tieWithin: 0, tieMatchShare: 1 } },
  },
}

/** sglang-router's names for the same policies (decision 29). */
export const profileAliases: Readonly<Record<string, string>> = {
  round_robin: 'round-robin',
  power_of_two: 'power-of-two',
  cache_aware: 'kv-aware',
}

export const defaultProfile = 'kv-aware'

export interface ProfileOptions {
  readonly context: PolicyContext
  /** Most candidates that a decision can have. */
  readonly workers: number
  readonly fault: PluginFault
  /** Plugins from outside, beside the built-in ones. */
  readonly more?: readonly PolicyPlugin[]
}

/**
 * A profile instance from its name or its parts. Throws RouterError CONFIG_INVALID, which names the plugin or parameter
 * at fault.
 */
export function createProfile(chosen: string | ProfileChoice, options: ProfileOptions): Profile {
  const known = [...plugins, ...(options.more ?? [])]
  const name = typeof chosen === 'string' ? (profileAliases[chosen] ?? chosen) : (chosen.name ?? 'custom')
  const choice = typeof chosen === 'string' ? profiles[name] : chosen
  if (choice === undefined) {
    const names = [...Object.keys(profiles), ...Object.keys(profileAliases)].join(', ')
    throw new RouterError('CONFIG_INVALID', `Unknown policy "${name}". Known: ${names}`)
  }
  const make = <Kind extends PolicyPlugin['kind']>(kind: Kind, plugin: PluginChoice) =>
    created(known, kind, plugin, options.context, name) as ReturnType<Extract<PolicyPlugin, { kind: Kind }>['create']>
  return new Profile(
    {
      name,
      filters: (choice.filters ?? []).map((filter) => ({ type: filter.type, filter: make('filter', filter) })),
      scorers: (choice.scorers ?? []).map((scorer) => ({
        type: scorer.type,
        scorer: make('scorer', scorer),
        weight: scorer.weight ?? 1,
      })),
      picker: {
        type: choice.picker?.type ?? 'best-score',
        picker: make('picker', choice.picker ?? { type: 'best-score' }),
      },
    },
    options.workers,
    options.fault,
  )
}

function created(
  known: readonly PolicyPlugin[],
  kind: PolicyPlugin['kind'],
  choice: PluginChoice,
  context: PolicyContext,
  profile: string,
): ReturnType<(FilterPlugin | ScorerPlugin | PickerPlugin)['create']> {
  const plugin = known.find((candidate) => candidate.kind === kind && candidate.type === choice.type)
  if (plugin === undefined) {
    const types = known.filter((candidate) => candidate.kind === kind).map(({ type }) => type)
    throw new RouterError(
      'CONFIG_INVALID',
      `Profile "${profile}": no ${kind} named "${choice.type}". Known: ${types.join(', ')}`,
    )
  }
  return plugin.create(checkedParameters(plugin, choice, profile), context)
}

function checkedParameters(plugin: PolicyPlugin, choice: PluginChoice, profile: string): Type.Static<Type.TSchema> {
  const filled = Value.Default(plugin.parameters, { ...choice.parameters })
  for (const error of Value.Errors(plugin.parameters, filled)) {
    if (error.keyword === 'boolean') continue
    const place = error.instancePath === '' ? '' : ` "${error.instancePath.slice(1)}"`
    const extra = error.keyword === 'additionalProperties' ? `: ${error.params.additionalProperties.join(', ')}` : ''
    throw new RouterError(
      'CONFIG_INVALID',
      `Profile "${profile}", ${plugin.kind} "${plugin.type}": parameter${place} ${error.message}${extra}`,
    )
  }
  return filled
}
