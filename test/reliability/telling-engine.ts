import { FakeEngine } from '../events/fake-engine.ts'
import { model } from '../support/fleet.ts'
import type { Encodable } from '../support/msgpack.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'
import type { RouterProcess } from './processes.ts'
import type { Addressed, Rig } from './rig.ts'

export const blockTokens = 16
const topic = 'kv@a'

/** An engine whose answers are scripted and whose KV events a scenario makes up, in front of which a router stands. */
export interface Telling {
  readonly router: RouterProcess
  /** The process that publishes now; `restart` puts another in its place. */
  events: FakeEngine
  restart(): Promise<void>
}

export interface TellingOptions {
  readonly replay?: boolean
  readonly budgetBytes?: number
  /** Cached tokens that its answers report. */
  readonly cachedTokens?: number
}

export async function tellingEngine(rig: Rig, options: TellingOptions = {}): Promise<Telling> {
  const { replay = true } = options
  const engine = await tellingWorker(rig, options)
  const { port, replayPort } = engine.events
  const router = await rig.router([engine], {
    config: {
      ...(options.budgetBytes === undefined ? {} : { map: { budgetBytes: options.budgetBytes } }),
    },
  })
  await until(() => engine.events.pub.subscribers > 0, 'the router listens', 10_000)
  if (replay)
    await until(
      async () => (await router.workers())[0]?.events.state === 'live',
      'it has loaded what there was',
      10_000,
    )
  let born = 1000
  const telling: Telling = {
    router,
    events: engine.events,
    async restart() {
      await telling.events.close()
      born += 100_000
      telling.events = await new FakeEngine(topic, born).listen(port, replayPort)
    },
  }
  rig.after(() => telling.events.close())
  return telling
}

/** The engine alone, and its place in a config; `serves`: its model. */
export async function tellingWorker(
  rig: Rig,
  { replay = true, cachedTokens = 0 }: TellingOptions = {},
  serves = model,
): Promise<Addressed & { readonly events: FakeEngine }> {
  const usage = { prompt_tokens: 1000, completion_tokens: 1, prompt_tokens_details: { cached_tokens: cachedTokens } }
  const http = await scriptedEngine(
    rig,
    ({ body }, response) => {
      const streams = body.includes('"stream":true')
      response.writeHead(200, { 'content-type': streams ? 'text/event-stream' : 'application/json' })
      if (streams) response.end('data: {"choices":[]}\n\ndata: [DONE]\n\n')
      else response.end(JSON.stringify({ id: 'cmpl-1', object: 'text_completion', choices: [], usage }))
    },
    serves,
  )
  const events = await new FakeEngine(topic).listen()
  const worker = {
    blockSize: blockTokens,
    events: {
      endpoint: `tcp://127.0.0.1:${events.port}`,
      ...(replay ? { replay: `tcp://127.0.0.1:${events.replayPort}` } : {}),
      topic,
    },
  }
  return { url: http.url, worker, events }
}

/** Tokens of one block of a chain; those of different chains and places differ. */
export function tokensOf(chain: number, place: number): number[] {
  const tokens = Array.from({ length: blockTokens }, () => 100)
  tokens[0] = 100 + (chain % 1000)
  tokens[1] = 100 + Math.floor(chain / 1000)
  tokens[2] = 100 + place
  return tokens
}

/** The engine's own name for a block. */
export function hashOf(chain: number, place: number): number {
  return 1_000_000 + chain * 1000 + place
}

/** The event that stores blocks `from` to `to` (exclusive) of a chain. */
export function stored(chain: number, from: number, to: number): Encodable {
  const places = Array.from({ length: to - from }, (_, index) => from + index)
  return {
    type: 'BlockStored',
    block_hashes: places.map((place) => hashOf(chain, place)),
    parent_block_hash: from === 0 ? null : hashOf(chain, from - 1),
    token_ids: places.flatMap((place) => tokensOf(chain, place)),
    block_size: blockTokens,
    medium: 'GPU',
  }
}

export function removed(chain: number, place: number): Encodable {
  return { type: 'BlockRemoved', block_hashes: [hashOf(chain, place)], medium: 'GPU' }
}

/** How many leading blocks of a chain the router believes to be on the engine. */
export async function matchedBlocks({ router }: Telling, chain: number, places: number): Promise<number> {
  const prompt = Array.from({ length: places }, (_, place) => tokensOf(chain, place)).flat()
  const record = await router.admin<{ candidates: readonly { matchedBlocks: { gpu: number } }[] }>('/admin/explain', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model, prompt: [...prompt, 99] }),
  })
  return record.candidates[0]?.matchedBlocks.gpu ?? -1
}

/** Blocks that the map holds of the only worker. */
export async function knownBlocks({ router }: Telling): Promise<number> {
  return (await router.workers())[0]?.map.blocks.gpu ?? -1
}
