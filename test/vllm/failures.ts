import assert from 'node:assert/strict'
import { call, eventually } from '../engines/client.ts'
import { newUser, takeTurn, type User } from './conversations.ts'
import { blockSize, type Engine } from './engine.ts'
import type { Lab } from './lab.ts'
import { text } from '../engines/texts.ts'

const endless = { model: 'model', max_tokens: 4000, temperature: 0, ignore_eos: true }
const freedMs = 5_000
/** For so long after its first request an engine that came back gets less than its share (`outliers.slowStart.windowMs`). */
const slowStartMs = 10_000
/** Coprime to the number of prompts. */
const strides = [1, 15, 5]

/** A client that hangs up frees its engine, whether its answer was streamed or not. */
export async function disconnects({ report, router, engines }: Lab): Promise<void> {
  report.section('Clients that hang up')
  const running = async (): Promise<number> => {
    const counts = await Promise.all(engines.map((engine) => engine.metric('vllm:num_requests_running')))
    return counts.reduce((sum, count) => sum + count, 0)
  }
  for (const stream of [true, false]) {
    const title = stream ? 'streamed' : 'not streamed'
    const client = new AbortController()
    const body = { ...endless, stream, prompt: text(stream ? 41 : 42, 60), cache_salt: `gone-${stream}` }
    const answer = call(`${router.url}/v1/completions`, { body, signal: client.signal }).catch(() => null)
    const begun = await eventually(async () => ((await running()) === 1 ? true : null), 20_000)
    const early =
      begun === true ? 'running' : await Promise.race([answer, Promise.resolve('neither running nor answered')])
    report.check(`${title}: the engine generates`, begun === true, JSON.stringify(early).slice(0, 300))
    const startMs = performance.now()
    client.abort()
    await answer
    const freed = await eventually(async () => ((await running()) === 0 ? performance.now() - startMs : null), freedMs)
    report.check(
      `${title}: hanging up frees the engine`,
      freed !== null,
      freed === null ? '' : `after ${freed.toFixed(0)} ms`,
    )
    const released = await eventually(
      async () =>
        (await router.workers()).every(({ inFlight }) => inFlight.requests === 0 && inFlight.prefillTokens === 0)
          ? true
          : null,
      freedMs,
    )
    report.check(`${title}: nothing is left in the router's own count`, released === true)
  }
}

/**
 * kill -9 of an engine in the middle of a stream: the client of the stream is told, the conversation goes on elsewhere,
 * and nothing is believed of the dead one. Returns which it was.
 */
export async function death(lab: Lab, users: readonly User[]): Promise<Engine> {
  const { report, router } = lab
  report.section('kill -9')
  const [warm] = users
  assert.ok(warm !== undefined)
  let begun = false
  const stream = call(`${router.url}/v1/chat/completions`, {
    body: { ...endless, stream: true, messages: [...warm.messages, { role: 'user', content: 'Tell me all.' }] },
    onText: () => (begun = true),
  }).catch(() => null)
  await eventually(() => Promise.resolve(begun ? true : null), 20_000)
  const busy = (await router.workers()).find(({ inFlight }) => inFlight.requests === 1)
  const victim = lab.engines.find(({ url }) => url === busy?.id)
  assert.ok(victim !== undefined, 'no engine answers the stream')
  report.check(
    'the stream goes to the engine that holds its beginning',
    victim === warm.engine,
    `${victim.name} is killed`,
  )
  victim.kill()
  lab.held(victim).clear()
  const engine = await takeTurn(lab, warm)
  report.check('a request that would have gone there is answered by the other', engine !== victim, `on ${engine.name}`)
  const cut = await stream
  report.equal('the stream had gone to it', cut?.headers['x-warmroute-worker'], victim.url)
  const events = cut?.text.trim().split('\n\n') ?? []
  report.equal('the stream ends as the protocol has it', events.at(-1), 'data: [DONE]')
  report.check('and tells what happened', /^data: \{"error":/.test(events.at(-2) ?? ''), events.at(-2) ?? 'nothing')
  const down = await router.workerOnce(
    victim.url,
    ({ state, map }) => state !== 'healthy' && map.blocks.gpu === 0,
    15_000,
  )
  report.check('it is down, and the map holds nothing of it', down !== null, JSON.stringify(down?.events))
  report.say(`retries: ${await router.metric('warmroute_retries_total')}`)
  for (const user of users) await takeTurn(lab, user)
  return victim
}

/** The same address, another process with another cache: nothing of the old one is believed, all of the new one is known. */
export async function restart(lab: Lab, engine: Engine, blocks: number, users: readonly User[]): Promise<void> {
  const { report, router } = lab
  report.section(`${engine.name} comes back with ${blocks} KV blocks`)
  const startMs = performance.now()
  engine.start(blocks)
  await engine.ready()
  report.say(`answers after ${((performance.now() - startMs) / 1000).toFixed(0)} s`)
  const back = await router.workerOnce(
    engine.url,
    ({ state, events }) => state === 'healthy' && events.state === 'live',
    60_000,
  )
  report.check('it is healthy, and its events are live', back !== null)
  report.equal('the map holds nothing of it', back?.map.blocks.gpu, 0)
  report.equal('KV blocks', back?.capacityBlocks, await engine.kvBlocks())
  for (const user of users) await takeTurn(lab, user)
  await new Promise((resolve) => setTimeout(resolve, slowStartMs))
  // Nobody knows these, so that they go to the engine that was sent the least lately.
  const fresh = [newUser('C', 1, 150), newUser('C', 2, 150)]
  for (let turn = 0; turn < 3; turn++) for (const user of fresh) await takeTurn(lab, user)
  report.check(
    'new conversations are warm on it',
    fresh.every((user) => user.engine === engine),
    fresh.map((user) => user.engine?.name).join(),
  )
}

/** More prompts than the engine has blocks: what the map says of each is what the engine then says. */
export async function evictions(lab: Lab, engine: Engine): Promise<void> {
  const { report, router } = lab
  report.section(`Evictions on ${engine.name}`)
  const prompts: number[][] = []
  for (let seed = 0; seed < 16; seed++)
    prompts.push(await router.tokenize({ prompt: text(600 + (seed % 4), 150) + text(700 + seed, 130 + seed) }))
  let predicted = 0
  let actual = 0
  const differing: string[] = []
  for (let round = 0; round < 3; round++) {
    for (let step = 0; step < prompts.length; step++) {
      // Another order in each round: in the same one, every prompt would be gone just before its turn.
      const at = (step * (strides[round] ?? 1)) % prompts.length
      const prompt = prompts[at] ?? []
      const held = (await router.heldBlocks(engine.url, prompt, null)) ?? -1
      const expected = Math.min(held, Math.floor((prompt.length - 1) / blockSize)) * blockSize
      const answer = await lab.sendTo(engine, { prompt, max_tokens: 4, temperature: 0 })
      predicted += expected
      actual += answer.cachedTokens ?? 0
      if (expected !== answer.cachedTokens)
        differing.push(`round ${round + 1} prompt ${at + 1}: ${expected}, engine ${answer.cachedTokens}`)
    }
  }
  const { map, capacityBlocks } = await router.worker(engine.url)
  report.check(
    'the map and the engine agree on every prompt',
    differing.length === 0,
    [`${predicted} tokens predicted, ${actual} found`, ...differing].join('; '),
  )
  const sent = prompts.reduce((sum, prompt) => sum + Math.floor(prompt.length / blockSize), 0)
  report.check(
    'blocks were evicted',
    map.blocks.gpu < sent && map.blocks.gpu > 0,
    `${map.blocks.gpu} held of ${sent} sent, room for ${capacityBlocks}`,
  )
  // The books know of no eviction: what they hold of this engine is not true any more.
  lab.held(engine).clear()
}

/** vLLM tells of a reset only with its next step: one request is predicted wrongly, and the next is right again. */
export async function reset(lab: Lab, engine: Engine, user: User): Promise<void> {
  const { report, router } = lab
  report.section(`POST /reset_prefix_cache on ${engine.name}`)
  const before = await router.worker(engine.url)
  const { status } = await call(`${engine.url}/reset_prefix_cache`, { body: {} })
  report.equal('reset', status, 200)
  const first = await takeTurn(lab, user, 'lost unnoticed')
  report.check('the first request after it is predicted by what was known', first === engine, `on ${first.name}`)
  const after = await router.worker(engine.url)
  report.check(
    'then the map has forgotten the rest',
    after.map.blocks.gpu < before.map.blocks.gpu,
    `${before.map.blocks.gpu} blocks before, ${after.map.blocks.gpu} after`,
  )
  await takeTurn(lab, user)
}

/** What the router counted of its own truth is what the test counted. */
export async function agreement(lab: Lab): Promise<void> {
  const { report, router } = lab
  report.section('Agreement of predicted and reported cached tokens')
  for (const engine of lab.engines) {
    const { agreement: seen } = await router.worker(engine.url)
    const difference = lab.tallies.get(engine)?.difference ?? 0
    // Of two numbers, the larger is half of sum and difference.
    const larger = (seen.predicted + seen.actual + difference) / 2
    const expected = larger === 0 ? 1 : 1 - difference / larger
    report.say(`${engine.name}: ${JSON.stringify(seen)}`)
    report.check(
      `${engine.name}: the router counts the same differences`,
      Math.abs(seen.ratio - expected) < 1e-9,
      `ratio ${seen.ratio.toFixed(4)}`,
    )
  }
  report.say(
    lab.differences.length === 0 ? 'no difference in any request' : `differences: ${lab.differences.join('; ')}`,
  )
}
