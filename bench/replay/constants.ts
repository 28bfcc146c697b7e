/**
 * What each constant of `kv-aware` is worth: the default, and the default with one constant halved, doubled or taken out, on agent sessions
 * and Mooncake's conversations (8 workers) in virtual time, paired over seeds. A constant whose neighbours are as good is
 * not a fine point; one whose absence costs is there for a reason.
 */
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import type { LoadOptions } from '../../src/replay/arrivals.ts'
import { calibrated } from '../../src/replay/calibration.ts'
import { ReplayPool } from '../../src/replay/pool.ts'
import { meanOf, pairedDifference } from '../../src/replay/statistics.ts'
import type { ReplayResult } from '../../src/replay/summary.ts'
import { readTrace } from '../../src/replay/traces/read.ts'
import { traceFigures } from '../../src/replay/traces/trace.ts'
import type { ProfileChoice } from '../../src/routing/catalogue.ts'
import { printResults, type BenchResult } from '../result.ts'

const seeds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
const workers = 8
const calibration = calibrated('agentic')

interface Setting {
  readonly name: string
  readonly trace: string
  readonly cacheShare: number
  readonly load: LoadOptions
}

const users = { thinkCapMs: 30_000, durationMs: 600_000, warmUpMs: 240_000 }
const settings: readonly Setting[] = [
  { name: 'agentic, 64 users', trace: 'agentic_sessions', cacheShare: 0.25, load: { ...users, users: 64 } },
  {
    name: 'agentic, small caches, 72 users',
    trace: 'agentic_sessions',
    cacheShare: 0.1,
    load: { ...users, users: 72 },
  },
  {
    name: 'mooncake, 2 ×',
    trace: 'mooncake_conversation',
    cacheShare: 0.5,
    load: { rate: 2, jitterMs: 3_000, warmUpMs: 60_000 },
  },
]

/** Parameters of `predicted-ttft` and of `best-score`, and what is tried in place of each. */
const scorer: Readonly<Record<string, readonly number[]>> = {
  othersWeight: [0, 0.25, 1],
  runningRequestTokens: [0, 8, 32],
  ownWeight: [0.5, 1.5],
  twinCredit: [0, 1, 1.5],
  learnedSamples: [16, 256],
  prefillTokensPerSecond: [2_000, 32_000],
}
const picker: Readonly<Record<string, readonly number[]>> = {
  tieWithin: [0, 4],
  tieMatchShare: [0.02, 0.5],
  windowMs: [15_000, 240_000],
}

interface Variant {
  readonly name: string
  readonly policy: ProfileChoice
}

const variants: readonly Variant[] = [
  ...triedOf(scorer).map(([name, parameters]) => variant(name, parameters, {})),
  ...triedOf(picker).map(([name, parameters]) => variant(name, {}, parameters)),
]

export async function run(): Promise<BenchResult[]> {
  const results: BenchResult[] = []
  for (const setting of settings) results.push(...(await compare(setting)))
  return results
}

async function compare({ name, trace, cacheShare, load }: Setting): Promise<BenchResult[]> {
  const path = fileURLToPath(new URL(`../../test/fixtures/traces/${trace}.jsonl`, import.meta.url))
  const { blockTokens, ...read } = await readTrace(path)
  const { distinctBlocks } = traceFigures({ blockTokens, ...read })
  const workingSet = (distinctBlocks * blockTokens) / calibration.blockSize
  const capacityBlocks = Math.floor((workingSet * cacheShare) / workers)
  const pool = new ReplayPool({ path, threads: Math.min(2, availableParallelism()) })
  const play = (policy: string | ProfileChoice): Promise<ReplayResult[]> =>
    Promise.all(seeds.map((seed) => pool.run({ policy, workers, seed, calibration, capacityBlocks, load })))
  const own = await play('kv-aware')
  const ownMs = own.map(({ ttftMs }) => ttftMs.mean)
  const results = [
    { ...figures(`${name}: kv-aware, mean TTFT`, own), unit: 'ms', value: meanOf(ownMs), samples: ownMs },
  ]
  for (const { name: changed, policy } of variants) {
    const runs = await play(policy)
    const ms = runs.map(({ ttftMs }) => ttftMs.mean)
    const { mean, halfWidth } = pairedDifference(ms, ownMs)
    const { notes } = figures('', runs)
    results.push({
      name: `${name}: ${changed}, mean TTFT over that of the default`,
      unit: 'ratio',
      value: meanOf(ms) / meanOf(ownMs),
      samples: ms.map((each, index) => each / (ownMs[index] ?? NaN)),
      notes: { 'more, ms': mean, '±': halfWidth, ...notes },
    })
  }
  await pool.close()
  return results
}

function figures(name: string, runs: readonly ReplayResult[]) {
  return {
    name,
    notes: {
      p50: meanOf(runs.map(({ ttftMs }) => ttftMs.p50)),
      p90: meanOf(runs.map(({ ttftMs }) => ttftMs.p90)),
      hits: meanOf(runs.map(({ hitRatio }) => hitRatio)),
    } as Record<string, number>,
  }
}

function triedOf(constants: Readonly<Record<string, readonly number[]>>): [string, Record<string, number>][] {
  return Object.entries(constants).flatMap(([name, values]) =>
    values.map((value): [string, Record<string, number>] => [`${name} ${value}`, { [name]: value }]),
  )
}

function variant(name: string, ofScorer: Record<string, number>, ofPicker: Record<string, number>): Variant {
  return {
    name,
    policy: {
      name: `kv-aware with ${name}`,
      filters: [{ type: 'adapter-loaded' }],
      scorers: [{ type: 'predicted-ttft', parameters: ofScorer }],
      picker: { type: 'best-score', parameters: ofPicker },
    },
  }
}

if (import.meta.main) printResults(await run())
