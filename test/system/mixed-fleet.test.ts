import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import { model, postTo, type Fleet } from '../support/fleet.ts'
import { blockSize, Conversations, startMixedFleet, storedModel } from '../support/mixed-fleet.ts'
import { seededRandom } from '../support/random.ts'
import { until } from '../support/until.ts'

/** Batches that are lost in a row. */
const mostDropped = 3

/** What engines and networks suffer; each lasts for a part of a round at most. */
async function mishaps(fleet: Fleet, random: () => number): Promise<void> {
  const views = await fleet.workers()
  for (let i = 0; i < 2; i++) {
    const worker = fleet.worker(Math.floor(random() * fleet.simulators.workers.length))
    const kind = random()
    if (kind < 0.3) {
      // What an engine brought to a store stays there, and with it dies who would tell of its end.
      if (views.find(({ id }) => id === worker.url)?.pool === storedModel) continue
      await worker.kill()
      // A connection of somebody else may have been given the port meanwhile.
      await until(
        () =>
          worker.start().then(
            () => true,
            () => false,
          ),
        'the engine is back',
      )
    } else if (kind < 0.6) worker.dropEvents(1 + Math.floor(random() * mostDropped), { forget: random() < 0.5 })
    else if (kind < 0.8) {
      worker.pauseEvents()
      setTimeout(() => worker.resumeEvents(), 30)
    }
  }
}

/** Every fourth conversation is held with the model whose engines share a store. */
function modelOf(conversation: number): string {
  return conversation % 4 === 3 ? storedModel : model
}

/** Has every engine say something more: that what it said last was lost nobody knows before. */
async function hearAll(fleet: Fleet, random: () => number): Promise<void> {
  const views = await fleet.workers()
  for (let i = 0; i <= mostDropped; i++) {
    const prompt = Array.from({ length: 2 * blockSize }, () => 300 + Math.floor(random() * 500))
    await Promise.all(
      views.map(({ url, pool }) => postTo(`${url}/v1/completions`, { model: pool, prompt, max_tokens: 1 })),
    )
  }
  await fleet.settled()
}

/**
 * Asks for every prompt what the router believes, and compares it with what the engines hold. Where events were lost that
 * cannot be had again, less may be known, and nothing that is not there.
 */
async function compare(fleet: Fleet, prompts: readonly (readonly number[])[]): Promise<number> {
  let blocks = 0
  const views = new Map((await fleet.workers()).map((view) => [view.id, view]))
  for (const [at, prompt] of prompts.entries()) {
    const record = (await (await fleet.explain({ model: modelOf(at), prompt })).json()) as DecisionRecord
    const tokens = Uint32Array.from(prompt)
    for (const { worker, exact, matchedBlocks } of record.candidates) {
      const view = views.get(worker)
      if (!exact || view === undefined) continue
      const { gpu, host, disk, shared } = matchedBlocks
      const held = fleet.named(worker).trueMatch({ tokens })
      assert.ok(held !== null)
      const what = `${view.engine} ${worker}, ${prompt.length} tokens`
      if (view.events.partial) assert.ok(gpu + host <= held.gpu + held.host, what)
      else assert.deepEqual({ gpu, host, disk, shared }, { disk: 0, ...held }, what)
      blocks += gpu + host + shared
    }
  }
  return blocks
}

test('of a mixed fleet the map holds exactly what its engines hold, whatever befell them', async (t) => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 1e9))
  t.diagnostic(`seed ${seed}`)
  const random = seededRandom(seed)
  const fleet = await startMixedFleet()
  t.after(() => fleet.stop())
  const conversations = new Conversations(random)
  let compared = 0
  let events = 0
  let rounds = 0
  for (; events < 100_000; rounds++) {
    assert.ok(rounds < 400, `${events} events in ${rounds} rounds`)
    const clients = Array.from({ length: 8 }, async () => {
      for (let i = 0; i < 8; i++) {
        const [at, prompt] = conversations.next()
        const body = { model: modelOf(at), prompt, max_tokens: 1 + Math.floor(random() * 24) }
        // A restart cuts requests, which is part of the play.
        await (await fleet.post('/v1/completions', body)).text().catch(() => undefined)
      }
    })
    await Promise.all([...clients, mishaps(fleet, random)])
    await hearAll(fleet, random)
    compared += await compare(fleet, conversations.prompts)
    events = await fleet.metric('kv_events_total')
  }
  t.diagnostic(`${events} events, ${rounds} rounds, ${compared} blocks compared`)
  assert.ok(compared > 10_000, `${compared} blocks compared`)
})
