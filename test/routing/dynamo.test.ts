// NVIDIA Dynamo's cost and choice: by hand, and as the real router was seen to decide (test/fixtures/parity).
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { createProfile, type ProfileChoice } from '../../src/routing/catalogue.ts'
import { Candidates } from '../../src/routing/candidates.ts'
import { ActiveChains } from '../../src/routing/dynamo/active-chains.ts'
import type { Dispatch } from '../../src/routing/policy.ts'
import { InFlightCounters } from '../../src/workers/fleet.ts'
import { keysOf, type KeptCase, type NamedBlocks } from '../parity/dynamo-log.ts'
import { seededRandom } from '../support/random.ts'
import { aDispatch, aRequest, aWorker } from '../support/routing.ts'

type Held = readonly (readonly [worker: number, gpu: number, host: number, disk: number, shared?: number])[]

interface Asked {
  readonly tokens: number
  readonly blocks: NamedBlocks
  readonly held?: Held
}

/** A profile before so many workers; `send` chooses nothing. */
function fleetOf(count: number, { parameters = {}, temperature = 0, blockSize = 16, seed = 1 } = {}) {
  const now = { ms: 0 }
  const choice: ProfileChoice = {
    scorers: [{ type: 'dynamo-cost', parameters }],
    picker: { type: 'softmax', parameters: { router_temperature: temperature } },
  }
  const profile = createProfile(choice, {
    context: { clock: () => now.ms, random: seededRandom(seed) },
    workers: count,
    fault: (plugin, error) => assert.fail(`${plugin}: ${String(error)}`),
  })
  const workers = Array.from({ length: count }, (_, slot) => aWorker(slot, { blockSize }))
  const counters = new InFlightCounters(count)
  const candidates = new Candidates(count)
  const ask = ({ tokens, blocks, held = [] }: Asked) => {
    const counts = (): Uint32Array => new Uint32Array(count)
    const match = { gpu: counts(), host: counts(), disk: counts(), shared: counts(), coming: counts() }
    for (const [worker, gpu, host, disk, shared = 0] of held) {
      match.gpu[worker] = gpu
      match.host[worker] = host
      match.disk[worker] = disk
      match.shared[worker] = shared
    }
    candidates.gather(workers, counters, match, { nowMs: now.ms, staleLoadMs: 1000, promptTokens: tokens })
    const keys = keysOf(blocks)
    const chosen = profile.choose(aRequest({ promptTokens: tokens, keys: () => keys }), candidates, candidates)
    return { chosen, costs: [...profile.totals].map((total) => 0 - total), keys }
  }
  const send = (serial: number, asked: Asked, given: Partial<Dispatch> = {}): Dispatch => {
    const { keys } = ask(asked)
    const dispatch: Dispatch = {
      serial,
      promptTokens: asked.tokens,
      uncachedTokens: asked.tokens,
      prefillTokensAhead: 0,
      requestsAhead: 0,
      stream: true,
      atMs: now.ms,
      keys,
      held: candidates.held(serial),
      adapter: null,
      session: null,
      maxTokens: null,
      ...given,
    }
    profile.dispatched(dispatch)
    return dispatch
  }
  return { profile, now, workers, ask, send }
}

/** The first blocks of prompt A, and of B, which has nothing in common with it. */
const A = (count: number): NamedBlocks => [[0, count]]
const B = (count: number): NamedBlocks => [[1000, count]]

test('an idle worker costs the prompt in blocks, its last partial block too, and its full blocks once more as running ones', () => {
  const { ask } = fleetOf(1)
  assert.deepEqual(ask({ tokens: 40, blocks: A(2) }).costs, [2.5 + 2])
})

test('blocks on the GPU take off a block each, in host memory 0.75, on disk 0.25', () => {
  const { ask } = fleetOf(4)
  const held: Held = [
    [1, 4, 0, 0],
    [2, 0, 4, 0],
    [3, 2, 1, 1],
  ]
  assert.deepEqual(ask({ tokens: 160, blocks: A(10), held }).costs, [20, 16, 17, 10 - 3 + 10])
})

test('blocks of a shared store beyond a worker’s own take off half a block, or what shared_cache_multiplier says', () => {
  const asked = { tokens: 160, blocks: A(10), held: [[0, 2, 0, 0, 4]] as Held }
  assert.deepEqual(fleetOf(1).ask(asked).costs, [10 - 2 - 2 + 10])
  assert.deepEqual(fleetOf(1, { parameters: { shared_cache_multiplier: 0 } }).ask(asked).costs, [18])
})

test('a full match costs nothing but its running blocks: the block that engines compute again is not taken back', () => {
  assert.deepEqual(fleetOf(1).ask({ tokens: 32, blocks: A(2), held: [[0, 2, 0, 0]] }).costs, [2])
})

test('a prompt counts as prefill less what was cached when it was sent, until its first byte', () => {
  const { ask, send, profile } = fleetOf(2)
  // 10 blocks with 4 on the GPU and 2 in host memory: 160 − 16 × (4 + 0.75 × 2) = 72 tokens, 4.5 blocks.
  const sent = send(0, { tokens: 160, blocks: A(10), held: [[0, 4, 2, 0]] })
  const asked = { tokens: 32, blocks: B(2) }
  assert.deepEqual(ask(asked).costs, [4.5 + 2 + 10 + 2, 4])
  profile.firstByte(sent, 5)
  assert.deepEqual(ask(asked).costs, [2 + 10 + 2, 4])
  profile.finished(sent)
  assert.deepEqual(ask(asked).costs, [4, 4])
})

test('equal blocks of running requests count once, and a new prompt adds only what none of them has', () => {
  const { ask, send, profile } = fleetOf(1)
  const long = send(0, { tokens: 160, blocks: A(10) })
  const short = send(0, {
    tokens: 96,
    blocks: [
      [0, 4],
      [500, 2],
    ],
  })
  for (const sent of [long, short]) profile.firstByte(sent, 1)
  // Running: 10 + 2 blocks. The prompt shares 4 with both and 2 more with the short one.
  const asked = {
    tokens: 112,
    blocks: [
      [0, 4],
      [500, 2],
      [700, 1],
    ] as NamedBlocks,
  }
  assert.deepEqual(ask(asked).costs, [7 + 12 + 1])
  profile.finished(long)
  assert.deepEqual(ask(asked).costs, [7 + 6 + 1])
})

test('without router_assume_kv_reuse every request has its blocks to itself', () => {
  const { ask, send } = fleetOf(1, {
    parameters: { router_assume_kv_reuse: false, router_track_prefill_tokens: false, overlap_score_credit: 0 },
  })
  send(0, { tokens: 160, blocks: A(10) })
  send(0, { tokens: 160, blocks: A(10) })
  assert.deepEqual(ask({ tokens: 32, blocks: A(2) }).costs, [22])
})

test('without router_track_active_blocks only prefill counts', () => {
  const { ask, send } = fleetOf(1, { parameters: { router_track_active_blocks: false } })
  send(0, { tokens: 160, blocks: A(10) })
  assert.deepEqual(ask({ tokens: 32, blocks: A(2) }).costs, [12])
})

test('without router_track_prefill_tokens cached blocks are taken off the running ones, down to nothing', () => {
  const { ask, send } = fleetOf(2, { parameters: { router_track_prefill_tokens: false } })
  send(0, { tokens: 160, blocks: B(10) })
  const held: Held = [
    [0, 8, 0, 0],
    [1, 8, 0, 0],
  ]
  assert.deepEqual(ask({ tokens: 160, blocks: A(10), held }).costs, [12, 2])
  assert.deepEqual(ask({ tokens: 16, blocks: A(1), held: [[1, 1, 0, 0]] }).costs, [11, 0])
})

test('the credit of GPU blocks falls with the prefill queued beyond the least of all', () => {
  const { ask, send } = fleetOf(2, { parameters: { overlap_score_credit_decay: 1 } })
  send(0, { tokens: 160, blocks: B(10) })
  // 160 tokens more than on worker 1 are as much as the prompt itself, which halves the credit; host memory keeps its own.
  const held: Held = [
    [0, 8, 1, 0],
    [1, 8, 1, 0],
  ]
  assert.deepEqual(ask({ tokens: 160, blocks: A(10), held }).costs, [20 - 4 - 0.75 + 20, 10 - 8 - 0.75 + 10])
})

test('prefill_load_scale weighs prefill against running blocks, decode_active_request_weight adds for each request', () => {
  const { ask, send, profile } = fleetOf(1, { parameters: { prefill_load_scale: 3, decode_active_request_weight: 5 } })
  profile.firstByte(send(0, { tokens: 160, blocks: B(10) }), 1)
  assert.deepEqual(ask({ tokens: 32, blocks: A(2) }).costs, [3 * 2 + 12 + 5])
})

test('a degraded worker gets no credit, also where its request is sent to it', () => {
  const { ask, send, workers } = fleetOf(1)
  const [worker] = workers
  assert.ok(worker)
  worker.degraded = 'predictions_fail'
  const asked = { tokens: 160, blocks: A(10), held: [[0, 8, 0, 0]] as Held }
  assert.deepEqual(ask(asked).costs, [20])
  send(0, asked)
  assert.deepEqual(ask({ tokens: 16, blocks: B(1) }).costs, [10 + 1 + 10 + 1])
})

test('requests of other replicas count with what they say of themselves, their blocks shared with nobody', () => {
  const { ask, profile } = fleetOf(1)
  ask({ tokens: 16, blocks: A(1) })
  profile.dispatched(aDispatch({ promptTokens: 160, uncachedTokens: 80 }))
  assert.deepEqual(ask({ tokens: 16, blocks: A(1) }).costs, [5 + 1 + 10 + 1])
})

test('a request whose end was missed counts no longer than active_request_expiry_secs', () => {
  const { ask, send, now } = fleetOf(2, { parameters: { active_request_expiry_secs: 60 } })
  send(0, { tokens: 160, blocks: A(10) })
  now.ms = 60_000
  send(1, { tokens: 16, blocks: B(1) })
  assert.deepEqual(ask({ tokens: 32, blocks: A(2) }).costs[0], 4)
})

test('at temperature 0 the least cost is chosen, and one of several equal ones as often as the others', () => {
  const { ask } = fleetOf(4)
  const counts = [0, 0, 0, 0]
  for (let i = 0; i < 3000; i++) counts[ask({ tokens: 160, blocks: A(10), held: [[2, 1, 0, 0]] }).chosen]!++
  assert.deepEqual(counts, [0, 0, 3000, 0])
  counts.fill(0)
  for (let i = 0; i < 4000; i++) counts[ask({ tokens: 160, blocks: A(10) }).chosen]!++
  for (const count of counts) assert.ok(Math.abs(count - 1000) < 130, counts.join())
})

test('above temperature 0 a worker is chosen by exp(−(cost − least) / (range × temperature))', () => {
  const { ask } = fleetOf(3, { temperature: 0.5 })
  const held: Held = [
    [0, 8, 0, 0],
    [1, 4, 0, 0],
  ]
  const counts = [0, 0, 0]
  for (let i = 0; i < 10_000; i++) counts[ask({ tokens: 160, blocks: A(10), held }).chosen]!++
  const weights = [1, Math.exp(-1), Math.exp(-2)]
  const sum = weights.reduce((total, weight) => total + weight)
  weights.forEach((weight, i) => assert.ok(Math.abs(counts[i]! / 10_000 - weight / sum) < 0.02, counts.join()))
})

test('the blocks of running prompts are those of a plain set of them, whatever begins and ends in which order', () => {
  const prompt = fc.array(fc.nat(2), { maxLength: 6 })
  const step = fc.record({ holder: fc.nat(2), prompt, ends: fc.boolean(), pick: fc.nat(20) })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), prompt, (steps, asked) => {
      const blocks = [0, 0, 0]
      const chains = new ActiveChains<number>((holder, change) => {
        blocks[holder]! += change
      })
      const running: { holder: number; prompt: number[] }[] = []
      for (const { holder, prompt: path, ends, pick } of steps) {
        const [ended] = ends && running.length > 0 ? running.splice(pick % running.length, 1) : []
        if (ended === undefined) {
          running.push({ holder, prompt: path })
          chains.add(pathKeys(path), holder)
        } else chains.remove(pathKeys(ended.prompt), ended.holder)
        for (const each of [0, 1, 2]) {
          const held = new Set(running.filter((one) => one.holder === each).flatMap((one) => prefixesOf(one.prompt)))
          assert.equal(blocks[each], held.size)
          let reached = 0
          chains.reach(pathKeys(asked), (told, to) => {
            if (told === each) reached = to
          })
          assert.equal(reached, prefixesOf(asked).filter((prefix) => held.has(prefix)).length)
        }
      }
    }),
  )
})

const prefixesOf = (path: readonly number[]): string[] => path.map((_, i) => path.slice(0, i + 1).join(''))

/** One block a digit, named by all digits up to it. */
function pathKeys(path: readonly number[]): Uint32Array {
  return Uint32Array.from(prefixesOf(path).flatMap((prefix) => [parseInt(`1${prefix}`, 3), 1]))
}

const kept = JSON.parse(readFileSync(new URL('../fixtures/parity/dynamo.json', import.meta.url), 'utf8')) as {
  version: string
  cases: KeptCase[]
}

for (const { name, parameters, workers, blockSize, steps } of kept.cases) {
  test(`the choices and costs are those of Dynamo ${kept.version} itself: ${name}`, () => {
    const { ask, send, profile } = fleetOf(workers, { parameters, blockSize })
    const running = new Map<string, Dispatch>()
    let decided = 0
    for (const step of steps) {
      const [kind, id] = step
      const sent = running.get(id)
      if (kind === 'ask') {
        const [, , tokens, blocks, held, theirs, cost] = step
        const { chosen, costs } = ask({ tokens, blocks, held })
        assert.ok(Math.abs(costs[theirs]! - cost) < 1e-9, `${id}: ${costs[theirs]} is not ${cost}`)
        assert.ok(
          costs.every((other) => other >= cost - 1e-9),
          `${id}: there is a better one than ${theirs}`,
        )
        if (costs.filter((other) => other <= cost + 1e-9).length === 1) {
          assert.equal(chosen, theirs, id)
          decided++
        }
        running.set(id, send(theirs, { tokens, blocks, held }))
      } else if (sent === undefined) assert.fail(`${id} is not running`)
      else if (kind === 'first byte') profile.firstByte(sent, 1)
      else profile.finished(sent)
    }
    assert.ok(decided >= 30, `${decided} decisions`)
  })
}
