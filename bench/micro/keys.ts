/**
 * Block keys of whole prompts, in millions of tokens a second, against a plain sum over the same tokens.
 *
 *     node bench/micro/keys.ts
 */
import { parseArgs } from 'node:util'
import { blockKeys, createKeyMaker, localHashes } from '../../src/kv/keys.ts'
import { median, percentile, printResults } from '../result.ts'
import type { BenchResult } from '../result.ts'

const seed = 7
const rounds = 9
const tokensPerRound = 8_000_000
const goalMtokens = 300

export async function run(): Promise<BenchResult[]> {
  const maker = await createKeyMaker(new Uint8Array(32).fill(seed))
  const results: BenchResult[] = []
  for (const [blockSize, promptTokens] of [
    [16, 128],
    [16, 8192],
    [16, 131_072],
    [64, 8192],
  ] as const) {
    const scope = maker.scope({ model: 'bench', blockSize, adapter: null })
    const tokens = Uint32Array.from({ length: promptTokens }, (_, i) => Math.imul(i + seed, 0x9e3779b1) >>> 15)
    const prompts = Math.ceil(tokensPerRound / promptTokens)
    const rates: number[] = []
    const sums: number[] = []
    const locals: number[] = []
    let sink = 0
    const rate = (work: () => number): number => {
      const start = performance.now()
      for (let i = 0; i < prompts; i++) {
        tokens[0] = i
        sink ^= work()
      }
      return (prompts * promptTokens) / 1000 / (performance.now() - start)
    }
    const last = 2 * Math.floor(promptTokens / blockSize) - 1
    // One round unmeasured; the three kinds alternate within each round.
    for (let round = -1; round < rounds; round++) {
      const figures = [
        rate(() => blockKeys(tokens, scope)[last] ?? 0),
        rate(() => localHashes(tokens, scope)[1] ?? 0),
        rate(() => sum(tokens)),
      ] as const
      if (round < 0) continue
      rates.push(figures[0])
      locals.push(figures[1])
      sums.push(figures[2])
    }
    const value = median(rates)
    results.push({
      name: `block keys, block ${blockSize}, ${promptTokens} tokens`,
      unit: 'M tokens/s',
      value,
      samples: rates,
      ...(blockSize === 16 && promptTokens === 8192
        ? { goal: `>= ${goalMtokens}`, met: value >= goalMtokens }
        : undefined),
      notes: {
        best: percentile(rates, 1),
        locals: median(locals),
        sum: median(sums),
        'us a prompt': promptTokens / value,
        sink: sink & 1,
      },
    })
  }
  return results
}

function sum(tokens: Uint32Array): number {
  let total = 0
  for (let i = 0; i < tokens.length; i++) total = (total + (tokens[i] as number)) | 0
  return total
}

if (import.meta.main) {
  parseArgs({ options: {} })
  console.log(`seed ${seed}, node ${process.version}`)
  printResults(await run())
}
