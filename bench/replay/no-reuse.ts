/**
 * What caching-aware routing costs where there is nothing to reuse: Mooncake's conversations with every prompt made unlike all others,
 * on 8 workers, in virtual time, under the default and under least tokens, which knows of no cache. Seeded.
 */
import { fileURLToPath } from 'node:url'
import { calibrated } from '../../src/replay/calibration.ts'
import { runJob } from '../../src/replay/job.ts'
import { estimate, meanOf, pairedDifference } from '../../src/replay/statistics.ts'
import type { ReplayResult } from '../../src/replay/summary.ts'
import { readTrace } from '../../src/replay/traces/read.ts'
import { blockCount, type Trace } from '../../src/replay/traces/trace.ts'
import { printResults, type BenchResult } from '../result.ts'

const seeds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
const workers = 8
const capacityTokens = 1_000_000
/** How many times as fast as recorded. */
const rates = [1.1, 1.6, 2]
const path = fileURLToPath(new URL('../../test/fixtures/traces/mooncake_conversation.jsonl', import.meta.url))

export async function run(): Promise<BenchResult[]> {
  const trace = withoutReuse(await readTrace(path))
  const results: BenchResult[] = []
  for (const rate of rates) {
    const [own, blind] = await Promise.all([played(trace, 'kv-aware', rate), played(trace, 'least-tokens', rate)])
    const [ownMs, blindMs] = [own, blind].map((runs) => runs.map(({ ttftMs }) => ttftMs.mean)) as [number[], number[]]
    const at = `no reuse, ${workers} workers, ${rate} × recorded rate`
    const ratios = ownMs.map((ms, index) => ms / (blindMs[index] ?? NaN))
    const difference = pairedDifference(ownMs, blindMs)
    results.push(told(`${at}: kv-aware`, own), told(`${at}: least-tokens`, blind), {
      name: `${at}: kv-aware / least-tokens, ratio of mean TTFT`,
      unit: 'ratio',
      value: meanOf(ownMs) / meanOf(blindMs),
      samples: ratios,
      goal: '≤ 1.01',
      met: meanOf(ownMs) / meanOf(blindMs) <= 1.01,
      notes: { 'less than least-tokens, ms': -difference.mean, '±': difference.halfWidth },
    })
  }
  return results
}

/** No prompt begins like another one. */
function withoutReuse(trace: Trace): Trace {
  let next = 0
  const unlike = (blocks: Uint32Array): Uint32Array => {
    const count = blockCount(blocks)
    next += count
    return Uint32Array.of(next - count, count)
  }
  return {
    ...trace,
    sessions: trace.sessions.map((session) => ({
      ...session,
      commonBlocks: 0,
      requests: session.requests.map((request) => ({ ...request, blocks: unlike(request.blocks) })),
    })),
  }
}

async function played(trace: Trace, policy: string, rate: number): Promise<ReplayResult[]> {
  const calibration = calibrated('agentic')
  const results: ReplayResult[] = []
  for (const seed of seeds) {
    results.push(
      await runJob(
        {
          ...{ policy, workers, seed, calibration, capacityBlocks: capacityTokens / calibration.blockSize },
          load: { rate, jitterMs: 3000, warmUpMs: 60_000 / rate },
        },
        { trace },
      ),
    )
  }
  return results
}

function told(name: string, runs: readonly ReplayResult[]): BenchResult {
  const samples = runs.map(({ ttftMs }) => ttftMs.mean)
  const { mean, halfWidth } = estimate(samples)
  return {
    name: `${name}, mean TTFT over seeds`,
    unit: 'ms',
    value: mean,
    samples,
    notes: {
      '±': halfWidth,
      p50: meanOf(runs.map(({ ttftMs }) => ttftMs.p50)),
      p90: meanOf(runs.map(({ ttftMs }) => ttftMs.p90)),
    },
  }
}

if (import.meta.main) printResults(await run())
