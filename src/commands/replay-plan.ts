import { basename } from 'node:path'
import { readConfigFile } from '../config/load.ts'
import { RouterError } from '../errors.ts'
import { calibrated, defaultPreset, presets, type Calibration } from '../replay/calibration.ts'
import type { NamedPolicy, ReplayPlan } from '../replay/plan.ts'
import type { TierOptions } from '../replay/tiers.ts'
import { traceFigures, type Trace } from '../replay/traces/trace.ts'
import { faultOf } from './replay-faults.ts'
import type { Given, OptionName } from './replay-options.ts'

/** What a command line asks for. Throws RouterError CONFIG_INVALID. */
export function planOf(trace: Trace, given: Given): ReplayPlan {
  const isClosed = trace.sessions.every(({ startMs }) => startMs === null)
  const wrong = isClosed ? 'rate' : 'users'
  if (given.text(wrong) !== undefined)
    throw new RouterError(
      'CONFIG_INVALID',
      isClosed
        ? `${trace.name} is a closed loop: its load is --users, not --rate`
        : `${trace.name} is an open loop: its load is --rate, not --users`,
    )
  const loads = isClosed ? given.numbers('users', 1) : given.numbers('rate', 0)
  const workers = given.number('workers', 1) ?? 1
  const seeds = given.number('seeds', 1) ?? 1
  return {
    policies: given.list('policies').flatMap((name) => withTiers(policyOf(name), given.all('tiers'))),
    loadKind: isClosed ? 'users' : 'rate',
    loads: loads.length > 0 ? loads : [isClosed ? trace.sessions.length : 1],
    seeds: Array.from({ length: seeds }, (_, index) => index + 1),
    findsLimit: given.flag('find-limit'),
    base: baseOf(trace, workers, given),
  }
}

function baseOf(trace: Trace, workers: number, given: Given): ReplayPlan['base'] {
  const calibration = calibrationOf(given, trace)
  const share = given.number('cache-share', 0) ?? 0
  const shareBlocks = (): number =>
    Math.floor((traceFigures(trace).distinctBlocks * trace.blockTokens * share) / calibration.blockSize / workers)
  const replicas = given.number('replicas', 1) ?? 1
  const delayMs = given.number('replica-delay', 0) ?? 0
  const faults = given.all('fault').map((text) => faultOf(text, workers))
  const seconds = (name: OptionName): number | undefined => {
    const value = given.number(name, 0)
    return value === undefined ? undefined : value * 1000
  }
  return {
    ...{ workers, calibration, capacityBlocks: Math.max(1, given.number('cache-blocks', 1) ?? shareBlocks()) },
    slo: {
      ttftMs: given.number('slo-ttft', 0) ?? 0,
      ttftMsPer1kTokens: given.number('slo-ttft-per-1k', 0) ?? 0,
      itlMs: given.number('slo-itl', 0) ?? 0,
    },
    load: given.defined({
      thinkScale: given.number('think-scale', 0),
      thinkCapMs: seconds('think-cap'),
      durationMs: seconds('duration'),
      warmUpMs: seconds('warm-up'),
      jitterMs: seconds('jitter'),
    }),
    ...given.defined({ timeoutMs: seconds('timeout'), speeds: speedsOf(given) }),
    router: {
      withoutEvents: given.number('without-events', 0) ?? 0,
      capacityFactor: given.number('capacity-factor', 0) ?? 1,
      ...(replicas > 1 ? { replicas: { count: replicas, delayMs, shareMs: 1 } } : {}),
    },
    ...(given.flag('bounds') ? { tellsBounds: true } : {}),
    ...(faults.length > 0 ? { faults } : {}),
  }
}

function speedsOf(given: Given): readonly number[] | undefined {
  const speeds = given.numbers('speeds', 0)
  if (speeds.some((speed) => speed === 0)) throw new RouterError('CONFIG_INVALID', '--speeds are above 0')
  return speeds.length === 0 ? undefined : speeds
}

/** A preset or a file; blocks of the engines divide those of the trace, as long as nothing has tokens. */
function calibrationOf(given: Given, trace: Trace): Calibration {
  const name = given.text('calibration') ?? defaultPreset
  const { preset = defaultPreset, ...figures } = name in presets ? { preset: name } : readConfigFile(name)
  if (typeof preset !== 'string') throw new RouterError('CONFIG_INVALID', `${name}: "preset" must be a text`)
  const calibration = calibrated(preset, figures)
  if (!given.has('real-time') && trace.blockTokens % calibration.blockSize !== 0)
    throw new RouterError(
      'CONFIG_INVALID',
      `Blocks of ${calibration.blockSize} tokens do not divide those of the trace, ${trace.blockTokens}; set "blockSize" in a calibration file`,
    )
  return calibration
}

/** A policy with each of the set-ups. */
function withTiers(policy: NamedPolicy, setups: readonly string[]): NamedPolicy[] {
  if (setups.length === 0) return [policy]
  return setups.map((text) => {
    const { name, tiers } = setupOf(text)
    return { ...policy, name: `${policy.name}, ${name}`, ...(tiers === null ? {} : { tiers }) }
  })
}

const tierFields: Readonly<Record<string, keyof TierOptions>> = {
  host: 'hostBlocks',
  disk: 'diskBlocks',
  shared: 'sharedBlocks',
  node: 'workersPerNode',
  credit: 'sharedCredit',
}

function setupOf(text: string): { name: string; tiers: TierOptions | null } {
  const [name = '', rest = ''] = text.split(/:(.*)/s)
  if (rest === '') return { name, tiers: null }
  const pairs = rest.split(',').map((pair) => {
    const [field = '', value = ''] = pair.split('=')
    const known = tierFields[field]
    const number = Number(value)
    const isWhole = Number.isInteger(number) || field === 'credit'
    if (known === undefined || value === '' || !(number >= 0) || !isWhole)
      throw new RouterError(
        'CONFIG_INVALID',
        `--tiers ${name}: "${pair}" is none of ${Object.keys(tierFields).join('=N, ')}=N`,
      )
    return [known, number] as const
  })
  const tiers: TierOptions = Object.fromEntries(pairs)
  if (tiers.workersPerNode === 0) throw new RouterError('CONFIG_INVALID', `--tiers ${name}: a node has workers`)
  if ((tiers.diskBlocks ?? 0) > 0 && (tiers.hostBlocks ?? 0) === 0)
    throw new RouterError('CONFIG_INVALID', `--tiers ${name}: a disk takes what leaves the host tier; give host=N, too`)
  return { name, tiers }
}

function policyOf(name: string): NamedPolicy {
  const [, file, place] = /^(.+\.ya?ml)(?:#(.+))?$/.exec(name) ?? []
  if (file === undefined) return { name, policy: name }
  let found: unknown = readConfigFile(file)
  for (const key of (place ?? 'profile').split('.')) found = (found as Record<string, unknown> | undefined)?.[key]
  if (typeof found === 'string') return { name: basename(name), policy: found }
  if (typeof found !== 'object' || found === null)
    throw new RouterError('CONFIG_INVALID', `${file} has no profile at "${place ?? 'profile'}"`)
  return { name: basename(name), policy: found }
}
