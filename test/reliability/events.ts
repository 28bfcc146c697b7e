import { setTimeout as after } from 'node:timers/promises'
import { model } from '../support/fleet.ts'
import type { Encodable } from '../support/msgpack.ts'
import { seededRandom } from '../support/random.ts'
import { until } from '../support/until.ts'
import { Verdict, type Scenario } from './scenario.ts'
import { knownBlocks, matchedBlocks, removed, stored, tellingEngine, tokensOf } from './telling-engine.ts'

const longestChain = 12

const lostBatches: Scenario = {
  number: '27',
  fault: '1 of 100 event batches is lost',
  promise: 'replay is asked for in ≤ 100 ms; after 100,000 events the map equals a model map',
  quick: true,
  async run(rig) {
    const telling = await tellingEngine(rig)
    const { events } = telling
    const random = seededRandom(27)
    /** Blocks of each chain, always its beginning: what a correct map must hold. */
    const model = new Map<number, number>()
    const batches = rig.size(1000, 150)
    const delays: number[] = []
    let held = 0
    for (let batch = 0; batch < batches; batch++) {
      const lost = batch % 100 === 50
      const told: Encodable[] = Array.from({ length: 100 }, () => {
        const chain = Math.floor(random() * 400)
        const length = model.get(chain) ?? 0
        const grows = length === 0 || (length < longestChain && random() < 0.6)
        model.set(chain, grows ? length + 1 : length - 1)
        return grows ? stored(chain, length, length + 1) : removed(chain, length - 1)
      })
      const asked = events.requests.length
      // What is measured is how soon the loss is noticed, not how long a backlog takes.
      if (lost) await until(async () => (await knownBlocks(telling)) === held, 'all before is applied', 10_000)
      held = [...model.values()].reduce((sum, length) => sum + length, 0)
      events.publish(told, lost)
      if (batch % 100 !== 51) continue
      const noticedMs = performance.now()
      await until(() => events.requests.length > asked, 'replay is asked for')
      delays.push(performance.now() - noticedMs)
    }
    await until(async () => (await knownBlocks(telling)) === held, 'the map holds as many blocks', 10_000)
    let wrong = 0
    for (const [chain, length] of model) if ((await matchedBlocks(telling, chain, longestChain)) !== length) wrong++
    const slowestMs = Math.max(...delays)
    const verdict = new Verdict()
    verdict.add(`replay asked for after at most ${slowestMs.toFixed(1)} ms, ${delays.length} times`, slowestMs <= 100)
    verdict.add(
      `after ${(batches * 100).toLocaleString('en-US')} events ${wrong} of ${model.size} chains differ`,
      wrong === 0,
    )
    verdict.add(`${held} blocks in both`)
    return verdict.finding(delays)
  },
}

const unfillableGap: Scenario = {
  number: '28',
  fault: 'a gap is older than what the engine keeps for replay',
  promise: 'the worker is cleared, nothing crashes, the metric counts 1; later events count again',
  quick: true,
  async run(rig) {
    const telling = await tellingEngine(rig)
    const { events, router } = telling
    events.keeps = 2
    for (let chain = 0; chain < 50; chain++) events.publish([stored(chain, 0, 8)])
    await until(async () => (await knownBlocks(telling)) === 400, 'all is known')
    for (let chain = 50; chain < 60; chain++) events.publish([stored(chain, 0, 8)], true)
    events.publish([stored(60, 0, 8)])
    await until(async () => (await matchedBlocks(telling, 60, 8)) === 8, 'later events count')
    const stale = await matchedBlocks(telling, 0, 8)
    const [gaps, row] = [await router.metric('kv_event_gaps_total'), (await router.workers())[0]]
    const verdict = new Verdict()
    verdict.add(`${stale} of 8 blocks from before the gap credited`, stale === 0)
    verdict.add(`gaps counted: ${gaps}`, gaps === 1)
    verdict.add(`events are ${row?.events.state ?? ''} again, ${row?.map.blocks.gpu ?? 0} blocks known`)
    return verdict.finding()
  },
}

const restartedEngine: Scenario = {
  number: '31',
  fault: 'an engine restarts on the same address from sequence 0, with replay and without',
  promise: 'stale blocks are gone in ≤ 1 s; 0 credits after that',
  quick: true,
  async run(rig) {
    const verdict = new Verdict()
    const samples: number[] = []
    for (const replay of [true, false]) {
      const telling = await tellingEngine(rig, { replay })
      for (let round = 0; round < rig.size(5, 2); round++) {
        const old = round * 2
        telling.events.publish([stored(old, 0, 8)])
        await until(async () => (await matchedBlocks(telling, old, 8)) === 8, 'the old blocks are known', 10_000)
        // Processes that live so short a time are crash loops, to which connections come back more slowly.
        await after(rig.size(2100, 0))
        await telling.restart()
        const startMs = performance.now()
        await until(() => telling.events.pub.subscribers > 0, 'the router listens again', 10_000)
        telling.events.publish([stored(old + 1, 0, 8)])
        await until(async () => (await matchedBlocks(telling, old, 8)) === 0, 'the old blocks are gone', 10_000)
        samples.push(performance.now() - startMs)
        await until(async () => (await matchedBlocks(telling, old + 1, 8)) === 8, 'the new blocks are known', 10_000)
        const again = await matchedBlocks(telling, old, 8)
        if (again !== 0) verdict.add(`${again} stale blocks credited again`, false)
      }
      const slowestMs = Math.max(...samples)
      verdict.add(`replay ${replay ? 'on' : 'off'}: gone after at most ${Math.round(slowestMs)} ms`, slowestMs <= 1000)
    }
    return verdict.finding(samples)
  },
}

const clearedEngine: Scenario = {
  number: '32',
  fault: 'AllBlocksCleared',
  promise: 'the worker’s count is 0 in ≤ 100 ms',
  quick: true,
  async run(rig) {
    const telling = await tellingEngine(rig)
    const samples: number[] = []
    for (let round = 0; round < rig.size(20, 5); round++) {
      for (let chain = 0; chain < 100; chain++) telling.events.publish([stored(chain, 0, 8)])
      await until(async () => (await knownBlocks(telling)) === 800, 'all is known')
      const startMs = performance.now()
      telling.events.publish([{ type: 'AllBlocksCleared' }])
      await until(async () => (await knownBlocks(telling)) === 0, 'the worker is cleared')
      samples.push(performance.now() - startMs)
    }
    const slowestMs = Math.max(...samples)
    return new Verdict().add(`0 after at most ${slowestMs.toFixed(1)} ms`, slowestMs <= 100).finding(samples)
  },
}

const mismatch: Scenario = {
  number: '34',
  fault: 'the engine’s cache is not what its events say (block size, hash seed, adapter, salt or media differ)',
  promise: 'the mismatch is detected within 100 requests, then the worker is routed by load only',
  quick: true,
  async run(rig) {
    const telling = await tellingEngine(rig, { cachedTokens: 0 })
    const { events, router } = telling
    events.publish([stored(1, 0, 60)])
    await until(async () => (await matchedBlocks(telling, 1, 60)) === 60, 'the blocks are known')
    const client = rig.client(router)
    const prompt = [...Array.from({ length: 60 }, (_, place) => tokensOf(1, place)).flat(), 99]
    /** Cached tokens that the router predicts for the next request. */
    const predicted = async (): Promise<number> => {
      const answer = await client.post('/v1/completions', JSON.stringify({ model, prompt, max_tokens: 1 }))
      return Number(answer.headers['x-warmroute-cached-tokens'])
    }
    let detected: number | null = null
    for (let request = 1; request <= 100 && detected === null; request++) {
      await predicted()
      if ((await router.workers())[0]?.degraded === 'predictions_fail') detected = request
    }
    const later = await predicted()
    const verdict = new Verdict()
    verdict.add(
      `the engine reports 0 cached tokens where 960 were predicted: ${detected === null ? 'not detected in 100 requests' : `detected at request ${detected}`}`,
      detected !== null,
    )
    verdict.add(`${later} predicted afterwards`, later === 0)
    return verdict.finding()
  },
}

export const events: readonly Scenario[] = [lostBatches, unfillableGap, restartedEngine, clearedEngine, mismatch]
