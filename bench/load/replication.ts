/**
 * Replicas that share one map through a real Redis: how late what an engine says is in another process' map, how much goes
 * through, and what a request costs while Redis is well, frozen or gone.
 */
import assert from 'node:assert/strict'
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { decodeBatch } from '../../src/events/decode.ts'
import { Normalizer } from '../../src/events/normalize.ts'
import type { EventSource } from '../../src/events/source.ts'
import type { EventPosition, NamedBatch } from '../../src/kv/batch.ts'
import { createKeyMaker } from '../../src/kv/keys.ts'
import { encodeMsgpack, Wide, type Encodable } from '../../test/support/msgpack.ts'
import { randomWords } from '../../test/support/random.ts'
import { until } from '../../test/support/until.ts'
import { median, percentile, printResults, type BenchResult } from '../result.ts'
import type { Applied } from './follower.ts'
import { RedisProcess } from './redis-process.ts'
import { blockSize, machineMs, openReplica, workerCount, type Replica } from './replica.ts'
import { requestPath } from './replication-requests.ts'

const batchesPerSecond = 2000
const warmSeconds = 3
/** Blocks of a decoding engine’s batch, and of a long prompt’s. */
const lagBlocks = 4
const throughputBlocks = 32
/** Of one round: well below what may wait for Redis. */
const throughputBatches = 8000
const turnBatches = 32
const answerMs = 60_000

/** `short`: a look at whether it runs, not a measurement. */
export async function run(words: readonly string[] = []): Promise<BenchResult[]> {
  const isShort = words.includes('short')
  const seconds = isShort ? 2 : 20
  // Made before there are leases to hold: who is busy for longer than they live loses them.
  const payloads = makePayloads((warmSeconds + seconds) * batchesPerSecond, lagBlocks)
  const named = await makeNamed()
  return [
    ...(await withFollower((pair) => lag(pair, payloads, seconds))),
    ...(await withFollower((pair) => throughput(pair, named, isShort ? 2 : 9))),
    ...(await requestPath(isShort ? 1 : 7)),
  ]
}

interface Pair {
  /** Hears the engines and writes the log. */
  readonly owner: Replica
  /** Begins to count in the other process; what it answers comes when so many batches are applied there. */
  readonly expect: (batches: number) => Promise<{ readonly applied: Promise<Applied> }>
}

async function withFollower(measure: (pair: Pair) => Promise<BenchResult[]>): Promise<BenchResult[]> {
  const redis = await RedisProcess.start()
  const owner = await openReplica({ url: redis.url, listen: heardElsewhere, applied: () => undefined })
  let child: ChildProcess | null = null
  try {
    const { plane } = owner.replication
    await until(() => owner.workers.every(({ events }) => plane.owned.has(events.worker)), 'the leases are ours')
    // Begun only now: it would have taken some of them.
    const follower = fork(fileURLToPath(new URL('follower.ts', import.meta.url)), [redis.url], {
      serialization: 'advanced',
    })
    child = follower
    await told(follower)
    const expect: Pair['expect'] = async (batches) => {
      follower.send(batches)
      await told(follower)
      return { applied: told(follower) as Promise<Applied> }
    }
    return await measure({ owner, expect })
  } finally {
    child?.kill()
    await owner.replication.stop()
    await redis.kill()
  }
}

/** What the process says next. */
async function told(child: ChildProcess): Promise<unknown> {
  const waiting = new AbortController()
  const signal = AbortSignal.any([waiting.signal, AbortSignal.timeout(answerMs)])
  const ended = once(child, 'exit', { signal }).then(() => Promise.reject(new Error('the follower ended')))
  try {
    const [message] = (await Promise.race([once(child, 'message', { signal }), ended])) as [unknown]
    return message
  } finally {
    ended.catch(() => undefined)
    waiting.abort()
  }
}

/** The owner's engines: their batches are given to it by hand. */
function heardElsewhere(): EventSource {
  return {
    start: () => undefined,
    stop: () => Promise.resolve(),
    status: () => ({ state: 'live', lastSequence: null, gaps: 0, restarts: 0, partial: false, epoch: 1 }),
    workerDown: () => undefined,
  }
}

async function lag({ owner, expect }: Pair, payloads: readonly Buffer[], seconds: number): Promise<BenchResult[]> {
  let sent = 0
  const during = async (windowSeconds: number): Promise<Applied> => {
    const end = sent + windowSeconds * batchesPerSecond
    const { applied } = await expect(end - sent)
    const from = sent
    const startMs = machineMs()
    while (sent < end) {
      const due = Math.min(end, from + Math.floor(((machineMs() - startMs) * batchesPerSecond) / 1000))
      for (; sent < due; sent++) {
        // Its timestamp says when the engine's bytes came in: with it the other process finds out how late it is.
        owner.workers[sent % workerCount]?.ingest.apply(
          Math.floor(sent / workerCount),
          machineMs(),
          payloads[sent] ?? Buffer.alloc(0),
        )
      }
      await pause(1)
    }
    return applied
  }
  await during(warmSeconds)
  const { ages, blocks } = await during(seconds)
  assert.equal(blocks, sent * lagBlocks)
  const windows = Array.from({ length: seconds }, (_, second) =>
    ages.subarray(second * batchesPerSecond, (second + 1) * batchesPerSecond),
  )
  const row = (share: number, goalMs: number): BenchResult => {
    const value = percentile([...ages], share)
    return {
      name: `lag, an engine’s batch here to the map there, p${share * 100} of all (samples: each second’s)`,
      unit: 'ms',
      value,
      samples: windows.map((window) => percentile([...window], share)),
      goal: `≤ ${goalMs} ms`,
      met: value <= goalMs,
      notes: {
        'batches a second': batchesPerSecond,
        'blocks a batch': lagBlocks,
        batches: ages.length,
        longest: percentile([...ages], 1),
      },
    }
  }
  return [row(0.5, 1), row(0.99, 10)]
}

async function throughput(
  { owner, expect }: Pair,
  named: readonly NamedEvents[],
  rounds: number,
): Promise<BenchResult[]> {
  const samples: number[] = []
  for (let round = -1; round < rounds; round++) {
    const { applied } = await expect(named.length)
    const previous: (EventPosition | null)[] = owner.workers.map(() => null)
    const startMs = machineMs()
    for (const { events } of owner.workers) events.forgotten('start')
    for (const [index, batch] of named.entries()) {
      const at = index % workerCount
      const position = { sequence: Math.floor(index / workerCount), timestamp: round }
      owner.workers[at]?.events.heard({ ...batch, ...position, previous: previous[at] ?? null })
      previous[at] = position
      if (index % turnBatches === 0) await nextTurn()
    }
    const { atMs, blocks } = await applied
    assert.equal(blocks, named.length * throughputBlocks)
    // The first round warms the compilers up.
    if (round >= 0) samples.push((named.length * throughputBlocks * 1000) / (atMs - startMs))
  }
  const value = median(samples)
  return [
    {
      name: 'from named blocks here to the map there',
      unit: 'blocks/s',
      value,
      samples,
      goal: '≥ 500,000 blocks/s',
      met: value >= 500_000,
      notes: { 'blocks a batch': throughputBlocks, 'batches a round': named.length },
    },
  ]
}

type NamedEvents = Pick<NamedBatch, 'blockSize' | 'events' | 'others' | 'removedTwice'>

async function makeNamed(): Promise<NamedEvents[]> {
  const keys = await createKeyMaker(Buffer.from('bench'))
  const fail = (): never => {
    throw new Error('events of one’s own are understood')
  }
  const normalizer = new Normalizer({ keys, model: 'model', blockSize, skipped: fail, onBlockSize: fail })
  return makePayloads(throughputBatches, throughputBlocks).map((payload) => ({
    blockSize,
    ...normalizer.normalize(decodeBatch(payload).events),
  }))
}

/** Batches as vLLM 0.32 sends them, each of a chain of its own. */
function makePayloads(batches: number, blocks: number): Buffer[] {
  const word = randomWords(7)
  const hash = (): Wide => new Wide((BigInt(word()) << 32n) | BigInt(word()))
  return Array.from({ length: batches }, () => {
    const event: Encodable = {
      type: 'BlockStored',
      block_hashes: Array.from({ length: blocks }, hash),
      parent_block_hash: null,
      token_ids: Array.from({ length: blocks * blockSize }, () => word() % 128_000),
      block_size: blockSize,
      lora_id: null,
      medium: 'GPU',
      lora_name: null,
      extra_keys: Array.from({ length: blocks }, () => null),
      group_idx: 0,
      kv_cache_spec_kind: 'full_attention',
    }
    return encodeMsgpack([0, [event], 0])
  })
}

if (import.meta.main) printResults(await run(process.argv.slice(2)))
