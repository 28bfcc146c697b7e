/**
 * One trace twice: in virtual time, and in real time over HTTP, through a router before simulated engines that run as processes of their
 * own. The recorded agent sessions are made eight times smaller, and the engines compute eight times fewer tokens a second. Takes about three
 * minutes. Real time depends on the machine, and what HTTP and the router take counts `speed` times: the ratios are what to compare.
 *
 *     npm run bench real-time
 */
import { fileURLToPath } from 'node:url'
import { calibrated, type Calibration } from '../../src/replay/calibration.ts'
import { runJob, type ReplayJob } from '../../src/replay/job.ts'
import { RealTimePlayer } from '../../src/replay/real-time/player.ts'
import { estimate } from '../../src/replay/statistics.ts'
import type { ReplayResult } from '../../src/replay/summary.ts'
import { readTrace } from '../../src/replay/traces/read.ts'
import { traceFigures, type Trace } from '../../src/replay/traces/trace.ts'
import { shrunk } from '../../test/support/shrunk.ts'
import type { BenchResult } from '../result.ts'

const own = 'kv-aware'
const policies = [own, 'least-loaded', 'round-robin']
const scale = 8
const speed = 8
const workers = 4
const cacheShare = 0.25
const load = { users: 16, thinkCapMs: 30_000, durationMs: 360_000, warmUpMs: 120_000 }
const slo = { ttftMs: 3_000, ttftMsPer1kTokens: 20 * scale, itlMs: 50 }
/** The first is played both ways; the others, in virtual time alone, tell how far apart runs are that differ in their users. */
const seeds = [1, 2, 3, 4, 5]
/** Users come to be elsewhere than in virtual time, and what is left in the caches with them. */
const mostHitDifference = 0.05

interface Pair {
  readonly policy: string
  readonly real: ReplayResult
  /** One for each seed. */
  readonly virtual: readonly ReplayResult[]
}

export async function run(): Promise<BenchResult[]> {
  const path = fileURLToPath(new URL('../../test/fixtures/traces/agentic_sessions.jsonl', import.meta.url))
  const trace = shrunk(await readTrace(path, { mostSessions: 120 }), scale)
  const player = new RealTimePlayer({ trace, speed, target: null, environment: process.env })
  const pairs: Pair[] = []
  try {
    for (const policy of policies) {
      const virtual = await Promise.all(seeds.map((seed) => runJob(jobOf(trace, policy, seed), { trace })))
      pairs.push({ policy, virtual, real: await player.run(jobOf(trace, policy, 1)) })
    }
  } finally {
    await player.close()
  }
  const notes = { 'of all runs': player.notes.join('; ') }
  return [...pairs.flatMap(figuresOf), ...ratios(pairs, notes)]
}

function jobOf(trace: Trace, policy: string, seed: number): ReplayJob {
  const { distinctBlocks } = traceFigures(trace)
  const capacityBlocks = Math.floor((distinctBlocks * cacheShare) / workers)
  return { policy, workers, seed, capacityBlocks, calibration, load, slo, timeoutMs: 60_000 }
}

const recorded = calibrated('agentic')
const calibration: Calibration = {
  ...recorded,
  blockSize: recorded.blockSize / scale,
  prefillTokensPerSecond: recorded.prefillTokensPerSecond / scale,
  maxBatchedTokens: recorded.maxBatchedTokens / scale,
}

function figuresOf({ policy, real, virtual }: Pair): BenchResult[] {
  const [same] = virtual
  const over = (of: (result: ReplayResult) => number): number => estimate(virtual.map(of)).halfWidth
  const lost = real.timedOut + real.refused + real.failed
  const isNear = Math.abs(real.hitRatio - (same?.hitRatio ?? NaN)) <= mostHitDifference
  return [
    {
      name: `hit ratio over HTTP: ${policy}`,
      unit: 'share',
      value: real.hitRatio,
      samples: [real.hitRatio],
      ...{ goal: `within ${mostHitDifference} of virtual time`, met: isNear },
      notes: { 'virtual time': same?.hitRatio ?? NaN, '± over its seeds': over(({ hitRatio }) => hitRatio) },
    },
    {
      name: `mean TTFT over HTTP: ${policy}`,
      unit: 'ms',
      value: real.ttftMs.mean,
      samples: [real.ttftMs.mean],
      ...{ goal: 'every request answered', met: lost === 0 },
      notes: {
        ...{ p50: real.ttftMs.p50, p90: real.ttftMs.p90, 'in SLO': real.inSlo, requests: real.requests },
        ...{ 'timed out': real.timedOut, refused: real.refused, failed: real.failed },
        'virtual time': same?.ttftMs.mean ?? NaN,
        'its p50': same?.ttftMs.p50 ?? NaN,
        'its p90': same?.ttftMs.p90 ?? NaN,
        'its in SLO': same?.inSlo ?? NaN,
        '± over its seeds': over(({ ttftMs }) => ttftMs.mean),
      },
    },
  ]
}

/** The default over the others: that it comes first is what both ways have to tell. */
function ratios(pairs: readonly Pair[], notes: Readonly<Record<string, string>>): BenchResult[] {
  const base = pairs.find(({ policy }) => policy === own)
  if (base === undefined) return []
  const virtualMean = ({ virtual: [same] }: Pair): number => same?.ttftMs.mean ?? NaN
  return pairs
    .filter((pair) => pair !== base)
    .map((pair) => {
      const value = base.real.ttftMs.mean / pair.real.ttftMs.mean
      return {
        name: `ratio of mean TTFT over HTTP: ${own} / ${pair.policy}`,
        unit: 'ratio',
        value,
        samples: [value],
        ...{ goal: '< 1', met: value < 1 },
        notes: { 'virtual time': virtualMean(base) / virtualMean(pair), ...notes },
      }
    })
}
