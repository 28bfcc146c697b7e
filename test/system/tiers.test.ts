import assert from 'node:assert/strict'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test, type TestContext } from 'node:test'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import { vllmFlavour } from '../../src/simulator/flavours/vllm.ts'
import { SharedStore } from '../../src/simulator/shared-store.ts'
import { FakeEngine } from '../events/fake-engine.ts'
import { fleetFor, model, type Fleet, type FleetOptions } from '../support/fleet.ts'
import { objectEvent } from '../support/mooncake-events.ts'
import { seededRandom } from '../support/random.ts'
import { until } from '../support/until.ts'

const seed = Number(process.env['FC_SEED'] ?? Date.now() % 1_000_000)

/** Conversations that share heads and grow by turns, as token ids: more than the tiers hold. */
function prompts(random: () => number): () => number[] {
  const system = Array.from({ length: 4 }, (_, i) => Array.from({ length: 40 }, (_, at) => 1000 + 100 * i + at))
  const sessions: number[][] = []
  return () => {
    const chosen = Math.floor(random() * 14)
    const session = (sessions[chosen] ??= [...(system[chosen % 4] as number[])])
    const further = 10 + Math.floor(random() * 60)
    for (let i = 0; i < further; i++) session.push(2000 + Math.floor(random() * 2000))
    const prompt = session.slice()
    if (session.length > 600) sessions[chosen] = [...(system[chosen % 4] as number[])]
    return prompt
  }
}

function tieredFleet(t: TestContext, options: FleetOptions & { store?: SharedStore } = {}): Promise<Fleet> {
  return fleetFor(t, {
    workers: 2,
    ...options,
    engine: {
      blockSize: 16,
      capacityBlocks: 64,
      maxModelLength: 1000,
      hostBlocks: 100,
      hostLoadMsPerBlock: 0.02,
      sharedLoadMsPerBlock: 0.05,
      sharedStore: options.store ?? null,
      ...options.engine,
    },
  })
}

async function serve(fleet: Fleet, prompt: readonly number[]): Promise<void> {
  const answer = await fleet.post('/v1/completions', { model, prompt, max_tokens: 2 })
  assert.equal(answer.status, 200, await answer.text())
}

/** Whether the router's match of each worker, by tier, is what its simulator's tiers truly hold of the prompt. */
async function compare(fleet: Fleet, prompt: readonly number[]): Promise<void> {
  const explained = await fleet.explain({ path: '/v1/completions', body: { model, prompt, max_tokens: 2 } })
  const { candidates } = (await explained.json()) as DecisionRecord
  for (const { worker, matchedBlocks } of candidates) {
    const truth = fleet.named(worker).trueMatch({ tokens: Uint32Array.from(prompt) })
    assert.deepEqual(matchedBlocks, { disk: 0, ...truth }, `${worker}, seed ${seed}`)
  }
}

async function blocksAreTrue(fleet: Fleet): Promise<void> {
  for (const { id, map } of await fleet.workers()) {
    const truth = fleet.named(id).trueBlocks()
    assert(truth !== null)
    assert.deepEqual(map.blocks, { gpu: truth.gpu.size, host: truth.host.size, disk: 0 }, `${id}, seed ${seed}`)
  }
}

/** Serves rounds of requests at once and compares everything whenever all is quiet. */
async function workload(fleet: Fleet, rounds: number): Promise<void> {
  const random = seededRandom(seed)
  const next = prompts(random)
  const kept: number[][] = []
  for (let round = 0; round < rounds; round++) {
    const batch = Array.from({ length: 6 }, next)
    await Promise.all(batch.map((prompt) => serve(fleet, prompt)))
    kept.push(...batch)
    await fleet.settled()
    await blocksAreTrue(fleet)
    for (let i = 0; i < 6; i++) await compare(fleet, kept[Math.floor(random() * kept.length)] as number[])
  }
}

for (const hostWrites of ['through', 'evicted'] as const) {
  test(`the map holds what GPU, host tier and shared store truly hold, under evictions (${hostWrites})`, async (t) => {
    const store = new SharedStore({ capacityChunks: 12, chunkTokens: 64 })
    const fleet = await tieredFleet(t, { store, engine: { hostWrites } })
    await workload(fleet, 25)
    const { blocksByTier, orphans } = await fleet.admin<{ blocksByTier: number[]; orphans: number }>('/admin/map')
    // A chunk that outlives the one before it can be found by nobody, and waits for it.
    assert.equal((blocksByTier[3] ?? 0) + orphans, fleet.worker(0).trueBlocks()?.shared.size, `seed ${seed}`)
    assert((await fleet.metric('kv_event_blocks_total', { tier: 'shared', kind: 'removed' })) > 0)
    assert((await fleet.metric('kv_event_blocks_total', { tier: 'host', kind: 'removed' })) > 0)
    for (const { agreement } of await fleet.workers()) {
      assert(agreement.verified > 0 && agreement.ratio > 0.5, `agreement ${agreement.ratio}, seed ${seed}`)
    }
  })
}

test('a host tier that is told by hash alone is known where the GPU’s events described its blocks', async (t) => {
  const fleet = await tieredFleet(t, { simulators: { worker: { flavour: vllmFlavour({ placeholders: true }) } } })
  await workload(fleet, 12)
  assert((await fleet.metric('kv_event_blocks_total', { tier: 'host', kind: 'stored' })) > 0)
  assert.equal(await fleet.metric('kv_events_skipped_total', { reason: 'hash_unknown' }), 0)
})

test('a restarted engine’s tiers are forgotten, what it put into the shared store with removals as well', async (t) => {
  const store = new SharedStore({ capacityChunks: 100, chunkTokens: 64 })
  const fleet = await tieredFleet(t, { store })
  await workload(fleet, 3)
  await fleet.worker(0).restart()
  await until(
    async () => (await fleet.workers()).some(({ state, map }) => state === 'healthy' && map.blocks.gpu === 0),
    'the engine is back and known to be empty',
  )
  await fleet.settled()
  await blocksAreTrue(fleet)
  await workload(fleet, 2)
})

test('a connector’s own word for a pool that all workers reach is told in the config', async (t) => {
  const store = new SharedStore({ capacityChunks: 100, chunkTokens: 64 })
  const fleet = await tieredFleet(t, {
    store,
    engine: { hostBlocks: 0, sharedRemovals: false },
    simulators: { worker: { flavour: vllmFlavour({ sharedMedium: 'cpu' }) } },
    worker: { events: { media: { CPU: 'shared' } } },
  })
  await workload(fleet, 6)
})

test('a prefix in the shared store lets an idle worker be chosen before a busy one that computed it', async (t) => {
  const store = new SharedStore({ capacityChunks: 100, chunkTokens: 64 })
  const fleet = await tieredFleet(t, { store, engine: { hostBlocks: 0, capacityBlocks: 128 } })
  const prompt = Array.from({ length: 640 }, (_, i) => 3000 + i)
  await serve(fleet, prompt)
  await fleet.settled()
  const explained = await fleet.explain({ path: '/v1/completions', body: { model, prompt, max_tokens: 2 } })
  const { candidates, predictedCachedTokens } = (await explained.json()) as DecisionRecord
  assert.deepEqual(
    candidates.map(({ matchedBlocks }) => matchedBlocks.gpu + matchedBlocks.shared),
    [40, 40],
  )
  assert.equal(predictedCachedTokens, 624)
})

test('a store that no worker owns tells what it holds, and only its own gap clears it', async (t) => {
  const master = await new FakeEngine('').listen()
  t.after(() => master.close())
  const fleet = await tieredFleet(t, {
    engine: { hostBlocks: 0 },
    pool: { shared: [{ events: `tcp://127.0.0.1:${master.port}` }] },
  })
  await until(() => master.pub.subscribers > 0, 'the master is heard')
  const prompt = Array.from({ length: 100 }, (_, i) => 3000 + i)
  await serve(fleet, prompt)
  await fleet.settled()
  const [holder] = (await fleet.workers()).filter(({ map }) => map.blocks.gpu > 0)
  assert(holder !== undefined)
  const sharedOf = async (): Promise<number[]> => {
    const explained = await fleet.explain({ path: '/v1/completions', body: { model, prompt, max_tokens: 2 } })
    const { candidates } = (await explained.json()) as DecisionRecord
    return candidates.map(({ matchedBlocks: { gpu, shared } }) => gpu + shared).toSorted((a, b) => a - b)
  }
  // The engine's own names of the blocks, which the master knows as the keys of its objects.
  const hashes = [...(fleet.named(holder.id).trueBlocks()?.gpu ?? [])].map((name) => BigInt(`0x${name}`))
  assert.equal(hashes.length, 6)
  master.publish(hashes.map((hash) => objectEvent('stored', hash, String(hash))))
  await until(async () => (await sharedOf())[0] === 6, 'the other worker is credited with the store')
  master.publish(hashes.slice(2, 3).map((hash) => objectEvent('removed', hash, String(hash))))
  await until(async () => ((await sharedOf())[0] ?? 6) < 6, 'a removed object counts no more')
  const views = await fleet.admin<{ shared: { state: string; gaps: number }[] }>('/admin/map')
  assert.deepEqual(
    views.shared.map(({ state, gaps }) => ({ state, gaps })),
    [{ state: 'live', gaps: 0 }],
  )
  master.publish([], true)
  master.publish([{ event_type: 'stored', seq_hashes: [] }])
  await until(async () => (await sharedOf())[0] === 0, 'after a gap the store is not believed')
  await blocksAreTrue(fleet)
})

test('LMCache’s controller is asked for the next turn, and delays nobody who does not wait for it', async (t) => {
  const waiting: ServerResponse[] = []
  const bodies: { tokens: number[] }[] = []
  let layout: object | null = null
  const controller = createServer((request, response) => {
    request.setEncoding('utf8')
    let body = ''
    request.on('data', (part: string) => (body += part))
    request.on('end', () => {
      bodies.push(JSON.parse(body) as { tokens: number[] })
      if (layout === null) waiting.push(response)
      else response.end(JSON.stringify({ event_id: 'e1', layout_info: layout }))
    })
  }).listen(0, '127.0.0.1')
  t.after(() => {
    for (const response of waiting) response.destroy()
    controller.close()
  })
  await until(() => controller.listening, 'the controller listens')
  const { port } = controller.address() as AddressInfo
  const url = `http://127.0.0.1:${port}`
  const fleet = await tieredFleet(t, {
    engine: { hostBlocks: 0 },
    worker: { labels: { 'lmcache-instance': 'inst-0' } },
    pool: { lookup: { url, chunkTokens: 64, timeoutMs: 60_000, concurrency: 1 } },
    workers: 1,
  })
  const prompt = (first: number): number[] => Array.from({ length: 200 }, (_, i) => first + i)
  await serve(fleet, prompt(1000))
  await until(() => bodies.length === 1, 'the controller is asked')
  assert.deepEqual(bodies[0]?.tokens, prompt(1000).slice(0, 192))
  await serve(fleet, prompt(2000))
  assert.equal(bodies.length, 1, 'one lookup at a time, and requests go on')
  layout = { 'inst-0': ['LocalCPUBackend', 192] }
  waiting.pop()?.end(JSON.stringify({ event_id: 'e1', layout_info: {} }))
  await until(async () => (await fleet.metric('chunk_lookups_total', { result: 'answered' })) === 1, 'it has answered')
  await serve(fleet, prompt(3000))
  await until(async () => (await fleet.metric('chunk_lookups_total', { result: 'answered' })) === 2, 'it has answered')
  await fleet.settled()
  await fleet.worker(0).restart()
  await until(
    async () => (await fleet.workers()).every(({ state, map }) => state === 'healthy' && map.blocks.gpu === 0),
    'the engine is back and known to be empty',
  )
  const explained = await fleet.explain({
    path: '/v1/completions',
    body: { model, prompt: prompt(3000), max_tokens: 2 },
  })
  const { candidates } = (await explained.json()) as DecisionRecord
  assert.deepEqual(
    candidates.map(({ matchedBlocks, exact }) => [matchedBlocks.host, exact]),
    [[12, false]],
  )
})
