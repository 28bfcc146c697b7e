/**
 * What each constant of `kv-aware` is worth: the default, and the default with one constant halved, doubled or taken out, on agent
 * sessions and Mooncake's conversations (8 workers) in virtual time, paired over seeds. A constant whose neighbours are as good is
 * not a fine point; one whose absence costs is there for a reason. Sessions differ so much between seeds that ten of them
 * rank settings by chance.
 */
import { printResults, type BenchResult } from '../result.ts'
import { compareVariants, oneByOne, settings, type Variant } from './variants.ts'

/** Parameters of `predicted-ttft` and of `best-score`, and what is tried in place of each. */
const scorer: Readonly<Record<string, readonly number[]>> = {
  othersWeight: [0, 0.25, 1],
  runningRequestTokens: [0, 16],
  ownWeight: [0.5, 1.5],
  twinCredit: [0, 1, 1.5],
  demandWindowMs: [10_000, 120_000],
  learnedSamples: [16, 256],
  prefillTokensPerSecond: [2_000, 32_000],
}
const picker: Readonly<Record<string, readonly number[]>> = {
  tieWithin: [0, 4],
  tieMatchShare: [0.02, 0.5],
  windowMs: [15_000, 240_000],
}

const variants: readonly Variant[] = [
  ...oneByOne(scorer).map(([name, parameters]) => variant(name, parameters, {})),
  ...oneByOne(picker).map(([name, parameters]) => variant(name, {}, parameters)),
]

export async function run(): Promise<BenchResult[]> {
  const results: BenchResult[] = []
  for (const setting of settings) {
    results.push(...(await compareVariants(setting, variants, setting.trace === 'agentic_sessions' ? 30 : 10)))
  }
  return results
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
