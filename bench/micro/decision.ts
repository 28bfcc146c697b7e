/**
 * What a decision costs beyond the lookup: gathering the candidates, and filters, scorers and picker of a profile, with requests under
 * way on every worker so that what policies learn is there; and what a decision allocates, which must not grow with the workers.
 */
import { createProfile } from '../../src/routing/catalogue.ts'
import { Candidates } from '../../src/routing/candidates.ts'
import type { PolicyFacts } from '../../src/routing/policy.ts'
import { RoutedRequest } from '../../src/routing/request.ts'
import { Fleet, InFlight } from '../../src/workers/fleet.ts'
import { FleetLoad } from '../../src/workers/fleet-load.ts'
import type { Worker } from '../../src/workers/worker.ts'
import { aDispatch, aWorker } from '../../test/support/routing.ts'
import { seededRandom } from '../../test/support/random.ts'
import { median, printResults, type BenchResult } from '../result.ts'

const runs = 9
const decisionsARun = 4000
const blockSize = 16
const promptTokens = 8192
const underWay = 8
const goalsUs: Readonly<Record<number, number>> = { 16: 10, 256: 60 }
const profiles = ['kv-aware', 'session', 'dynamo', 'sglang', 'llm-d', 'least-tokens', 'round-robin']
const clock = (): number => performance.now()

export function run(): BenchResult[] {
  return profiles.flatMap((profile) => [16, 256].map((workers) => measured(profile, workers)))
}

function measured(name: string, workers: number): BenchResult {
  const decide = decider(name, workers)
  for (let warm = 0; warm < 5 * decisionsARun; warm++) decide()
  const samples: number[] = []
  const bytes: number[] = []
  for (let each = 0; each < runs; each++) {
    const heapBytes = process.memoryUsage().heapUsed
    const startMs = performance.now()
    for (let i = 0; i < decisionsARun; i++) decide()
    samples.push(((performance.now() - startMs) / decisionsARun) * 1000)
    const grown = process.memoryUsage().heapUsed - heapBytes
    // A collection in between says nothing of what was allocated.
    if (grown >= 0) bytes.push(grown / decisionsARun)
  }
  const value = median(samples)
  const goal = name === 'kv-aware' ? goalsUs[workers] : undefined
  return {
    name: `decision beyond the lookup, ${name}, ${workers} workers`,
    unit: 'µs',
    value,
    samples,
    notes: { 'bytes allocated a decision': median(bytes) },
    ...(goal === undefined ? {} : { goal: `≤ ${goal}`, met: value <= goal }),
  }
}

/** One more decision at each call, dispatched now and then so that policies go on learning. */
function decider(name: string, count: number): () => void {
  const random = seededRandom(1)
  const fleet = new Fleet(count)
  const load = new FleetLoad({ counters: fleet.counters })
  const workers = Array.from({ length: count }, (_, index): Worker => {
    const told = { running: 4, waiting: 0, kvUsage: 0.4, source: 'poll' as const, atMs: clock() + 3_600_000 }
    const worker = fleet.add((slot, serial) => aWorker(index, { slot, serial, load: told, capacityBlocks: 50_000 }))
    if (worker === null) throw new RangeError('the fleet is full')
    return worker
  })
  const profile = createProfile(name, {
    context: { clock, random },
    workers: count,
    fault: (plugin, error) => {
      throw new Error(`${plugin}: ${String(error)}`)
    },
  })
  const keys = Uint32Array.from({ length: (2 * promptTokens) / blockSize }, () => Math.floor(random() * 2 ** 32))
  for (const { slot, serial } of workers) {
    for (let request = 0; request < underWay; request++) {
      new InFlight(fleet.counters, slot, { promptTokens, uncachedTokens: 512, blockSize, sequences: 1 })
      profile.dispatched(aDispatch({ serial, promptTokens, uncachedTokens: 512, keys, atMs: clock() }))
    }
  }
  const blocks = (): Uint32Array => new Uint32Array(count)
  const match = { gpu: blocks(), host: blocks(), disk: blocks(), shared: blocks(), coming: blocks() }
  for (let slot = 0; slot < count; slot++) match.gpu[slot] = slot % 3 === 0 ? Math.floor(random() * 512) : 32
  const candidates = new Candidates(count)
  const request = new RoutedRequest()
  const queries = [{ blockSize, keys }]
  return () => {
    candidates.gather(workers, load, match, { nowMs: clock(), staleLoadMs: 5000, promptTokens })
    profile.choose(request.is(facts, queries), candidates, candidates)
  }
}

const facts: PolicyFacts = {
  model: 'model',
  adapter: null,
  promptTokens,
  promptTokensEstimate: promptTokens,
  session: '0123456789abcdef',
  user: null,
  keyId: 'anonymous',
  priority: 0,
  stream: true,
  maxTokens: null,
  header: () => null,
}

if (import.meta.main) printResults(run())
