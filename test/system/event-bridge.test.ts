// The Python examples beside a router of its own process, with a real Redis between them.
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { createKeyMaker, localHashes } from '../../src/kv/keys.ts'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import { startSimulators } from '../../src/simulator/simulate.ts'
import { loadTokenizer } from '../../src/tokenize/tokenizer.ts'
import { command, servedUrls } from '../support/command.ts'
import { demoTokenizer, model, postTo, prose, type WorkerView } from '../support/fleet.ts'
import { bridgeFolder, python, type RunningPython } from '../support/python.ts'
import { startRedis } from '../support/redis-server.ts'
import { until } from '../support/until.ts'

const blockSize = 16
const secret = 'shared by routers and bridges'
const stream = 'kv:engine-1'

/** One simulated engine, whose events the router takes from a stream, in which nobody writes yet. */
async function setUp(t: TestContext) {
  const redis = await startRedis(t)
  const tokenizer = await loadTokenizer({ path: demoTokenizer })
  const simulators = await startSimulators({ workers: 1, model, tokenizer, engine: { blockSize, stepBaseMs: 1 } })
  t.after(() => simulators.stop())
  const config = {
    listen: { port: 0 },
    admin: { port: 0 },
    redis: { url: redis.url },
    keys: { secret },
    pools: [{ model, tokenizer: demoTokenizer, workers: [{ url: simulators.urls[0], events: { redis: stream } }] }],
  }
  const file = join(mkdtempSync(join(tmpdir(), 'warmroute-bridge-')), 'config.yaml')
  writeFileSync(file, JSON.stringify(config))
  const { publicUrl, adminUrl } = await servedUrls(command(t, ['serve', '--config', file]))
  const explain = async (prompt: string): Promise<DecisionRecord> =>
    (await (await postTo(`${adminUrl}/admin/explain`, { model, prompt })).json()) as DecisionRecord
  const matched = async (prompt: string): Promise<number | undefined> =>
    (await explain(prompt)).candidates[0]?.matchedBlocks.gpu
  const worker = async (): Promise<WorkerView | undefined> =>
    ((await (await fetch(`${adminUrl}/admin/workers`)).json()) as { workers: WorkerView[] }).workers[0]
  await until(async () => (await worker())?.events.state === 'live', 'the stream is read')
  const tokensOf = async (prompt: string): Promise<number[]> =>
    ((await (await postTo(`${publicUrl}/tokenize`, { model, prompt })).json()) as { tokens: number[] }).tokens
  return { redis, simulators, publicUrl, explain, matched, worker, tokensOf }
}

function assertRuns(program: RunningPython): void {
  assert.equal(program.error(), '')
}

const longMs = 15_000

test('blocks that the bridge writes are credited until it removes them, starts anew, or its engine does', async (t) => {
  const { redis, matched, worker, tokensOf } = await setUp(t)
  const prompt = prose('bridged', 100)
  const tokens = await tokensOf(prompt)
  const blocks = Math.floor(tokens.length / blockSize)
  assert.ok(blocks >= 5)
  const bridge = python(t, ['bridge.py', redis.url, stream])
  const stored = (from: number, to: number): object => ({
    type: 'stored',
    hashes: Array.from({ length: to - from }, (_, index) => `0x${(0xff00 + from + index).toString(16)}`),
    parent: from === 0 ? null : `${0xff00 + from - 1}`,
    tokens: tokens.slice(from * blockSize, to * blockSize),
    block_size: blockSize,
  })
  bridge.write(JSON.stringify([stored(0, 2)]))
  bridge.write(JSON.stringify([stored(2, blocks)]))
  await until(async () => (await matched(prompt)) === blocks, 'all blocks are credited', longMs)
  bridge.write(JSON.stringify([{ type: 'removed', hashes: [`${0xff00 + blocks - 1}`] }]))
  await until(async () => (await matched(prompt)) === blocks - 1, 'the removed one is not')
  assert.deepEqual([(await worker())?.events.lastSequence, (await worker())?.events.gaps], [2, 0])

  assertRuns(bridge)
  await bridge.kill()
  const next = python(t, ['bridge.py', redis.url, stream])
  await until(async () => (await matched(prompt)) === 0, 'what an earlier bridge wrote is forgotten', longMs)
  const scope = (await createKeyMaker(Buffer.from(secret))).scope({ model, blockSize, adapter: null })
  const words = localHashes(Uint32Array.from(tokens), scope)
  const word = (at: number): string => (words[at] ?? 0).toString(16).padStart(8, '0')
  const locals = Array.from({ length: blocks }, (_, block) => `0x${word(2 * block + 1)}${word(2 * block)}`)
  const hashes = locals.map((_, block) => `${block}`)
  next.write(JSON.stringify([{ type: 'stored', hashes, locals, block_size: blockSize }]))
  await until(async () => (await matched(prompt)) === blocks, 'blocks named by local hashes are credited')
  const written = (await redis.client.xrevrange(stream, '+', '-', 'COUNT', 1))[0]?.[1].join(' ') ?? ''
  assert.doesNotMatch(written, /tokens/)
  next.write(JSON.stringify([{ type: 'cleared' }]))
  await until(async () => (await matched(prompt)) === 0, 'an engine that drops everything holds nothing')
  assertRuns(next)
})

test('what the relay brings of an engine makes the predictions that the engine then reports', async (t) => {
  const { redis, simulators, publicUrl, explain, worker } = await setUp(t)
  const [engine] = simulators.workers
  const publisher = engine?.publishers[0]
  const endpoint = engine?.places['events']
  assert.ok(publisher !== undefined && endpoint !== undefined)
  const relay = python(t, ['relay.py', endpoint, redis.url, stream])
  await until(() => publisher.subscribers === 1, 'the relay hears the engine', longMs)
  const ask = async (prompt: string): Promise<number> => {
    const answer = await postTo(`${publicUrl}/v1/completions`, { model, prompt, max_tokens: 4 })
    assert.equal(answer.status, 200)
    const { usage } = (await answer.json()) as { usage: { prompt_tokens_details: { cached_tokens: number } } }
    return usage.prompt_tokens_details.cached_tokens
  }
  const prompt = prose('relayed', 100)
  await ask(prompt)
  await until(
    async () => (await worker())?.events.lastSequence === publisher.nextSequence - 1,
    'all that the engine told is read',
    longMs,
  )
  const { predictedCachedTokens } = await explain(prompt)
  assert.ok(predictedCachedTokens >= 5 * blockSize)
  assert.equal(predictedCachedTokens, await ask(prompt))
  const { events } = (await worker()) ?? {}
  assert.deepEqual([events?.gaps, events?.restarts, events?.partial], [0, 0, false])

  await engine?.kill()
  await until(
    async () => (await lastField(redis.client)) === 'reset',
    'the relay tells that it lost the engine',
    longMs,
  )
  assertRuns(relay)
})

async function lastField(client: Awaited<ReturnType<typeof startRedis>>['client']): Promise<string | undefined> {
  return (await client.xrevrange(stream, '+', '-', 'COUNT', 1))[0]?.[1][2]
}

test('the local hashes of the Python example are those that the docs show', async (t) => {
  const page = readFileSync(join(bridgeFolder, '../../docs/event-stream.md'), 'utf8')
  const [, named = ''] = /under the secret `([^`]+)`/.exec(page) ?? []
  const [, vectors = '[]'] = /Vectors.*?```json\n(.*?)```/s.exec(page) ?? []
  const program = [
    'import json, sys',
    'from local_hashes import local_hash, seed',
    'vectors = json.loads(sys.argv[2])',
    'print(json.dumps([local_hash(seed(sys.argv[1]), v["tokens"], tuple(v["extras"])) for v in vectors]))',
  ].join('\n')
  const run = python(t, ['-c', program, named, vectors])
  assert.equal(await run.exited, 0, run.error())
  const expected = (JSON.parse(vectors) as readonly { readonly local: string }[]).map(({ local }) => local)
  assert.deepEqual(JSON.parse(run.out()), expected)
})
