import { RouterError } from '../errors.ts'
import type { ReplayPlan } from '../replay/plan.ts'
import { servedModel } from '../replay/real-time/endpoint.ts'
import type { Target } from '../replay/real-time/player.ts'
import { oraclePolicy } from '../replay/replay.ts'
import type { CommandIo } from './command.ts'
import type { Given, OptionName } from './replay-options.ts'

/** How a trace is played over HTTP. */
export interface RealTime {
  readonly speed: number
  /** Null: engines and a router of our own. */
  readonly target: (Target & { readonly maxModelLength: number | null }) | null
}

/** What the virtual engines and routers alone can do. */
const virtualOnly: readonly OptionName[] = [
  ...(['speeds', 'find-limit', 'tiers', 'fault', 'without-events', 'capacity-factor'] as const),
  ...(['replicas', 'replica-delay', 'threads'] as const),
]
/** What is said of engines that are started, and means nothing for those that run. */
const ownOnly: readonly OptionName[] = ['calibration', 'cache-blocks', 'cache-share', 'bounds', 'plugin']
const httpOnly: readonly OptionName[] = ['speed', 'api-key-env']

/** `--real-time` takes a URL or nothing, which the parser of command lines does not know. */
export function withOptionalUrl(argv: readonly string[]): string[] {
  const words: string[] = []
  for (const word of argv) {
    if (words.at(-1) === '--real-time=' && /^https?:/.test(word)) words.splice(-1, 1, `--real-time=${word}`)
    else words.push(word === '--real-time' ? '--real-time=' : word)
  }
  return words
}

/** Null where the trace is played in virtual time. Asks a URL what it serves. Throws RouterError. */
export async function realTimeOf(given: Given, environment: CommandIo['environment']): Promise<RealTime | null> {
  const place = given.text('real-time')
  if (place === undefined) {
    refuse(given, httpOnly, 'goes with --real-time')
    return null
  }
  refuse(given, virtualOnly, 'is for virtual time, not for --real-time')
  const speed = given.number('speed', 0) ?? 1
  if (speed === 0) throw new RouterError('CONFIG_INVALID', '--speed is above 0')
  if (place === '') {
    refuse(given, ['api-key-env'], 'goes with --real-time URL')
    if (given.list('policies').includes(oraclePolicy))
      throw new RouterError(
        'CONFIG_INVALID',
        `"${oraclePolicy}" sees what no router sees: it plays in virtual time alone`,
      )
    return { speed, target: null }
  }
  refuse(given, ownOnly, 'is for engines that are started here, not for --real-time URL')
  const url = baseOf(place)
  const apiKey = keyOf(given.text('api-key-env'), environment)
  const { id, maxModelLength } = await servedModel(url, given.text('model'), apiKey)
  return { speed, target: { url, model: id, maxModelLength, ...(apiKey === undefined ? {} : { apiKey }) } }
}

/** The plan as far as it is known: of what runs elsewhere neither policies nor caches are. */
export function planInRealTime(plan: ReplayPlan, { speed, target }: RealTime, given: Given): ReplayPlan {
  if (target === null) return { ...plan, realTime: { url: null, speed } }
  const policies = given.has('policies') ? plan.policies : [{ name: 'as it runs', policy: '' }]
  if (policies.length > 1)
    throw new RouterError(
      'CONFIG_INVALID',
      'What runs at a URL has one policy: --policies gives it a name for the report',
    )
  const workers = given.has('workers') ? plan.base.workers : 1
  const load = { ...plan.base.load, mostTokens: target.maxModelLength ?? Infinity }
  return {
    ...{ ...plan, policies, realTime: { url: target.url, speed } },
    base: { ...plan.base, workers, load, capacityBlocks: Infinity },
    seeds: given.has('seeds') ? plan.seeds : [1],
  }
}

function refuse(given: Given, names: readonly OptionName[], why: string): void {
  for (const name of names) if (given.has(name)) throw new RouterError('CONFIG_INVALID', `--${name} ${why}`)
}

/** Without what OpenAI's clients put at the end. */
function baseOf(place: string): string {
  if (!URL.canParse(place)) throw new RouterError('CONFIG_INVALID', `--real-time takes an http(s) URL, not "${place}"`)
  const { protocol, origin, pathname } = new URL(place)
  if (protocol !== 'http:' && protocol !== 'https:')
    throw new RouterError('CONFIG_INVALID', `--real-time takes an http(s) URL, not "${place}"`)
  return origin + pathname.replace(/\/+$/, '').replace(/\/v1$/, '')
}

function keyOf(name: string | undefined, environment: CommandIo['environment']): string | undefined {
  if (name === undefined) return undefined
  const key = environment[name]
  if (key === undefined || key === '')
    throw new RouterError('CONFIG_INVALID', `--api-key-env: the environment has no ${name}`)
  return key
}
