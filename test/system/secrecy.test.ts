// Decision 2: neither a prompt nor its token ids leave the process. One is planted, and everything that the router leaves
// behind is searched for it.
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { deflateSync, zstdCompressSync } from 'node:zlib'
import { startRouter } from '../../src/main.ts'
import { collectingLog, configOf, fleetFor, model, postTo, type LogLine, type WorkerView } from '../support/fleet.ts'
import { LeakSearch } from '../support/leaks.ts'
import { encodeMsgpack } from '../support/msgpack.ts'
import { recordingProxy } from '../support/recording-proxy.ts'
import { startRedis, type RedisServer } from '../support/redis-server.ts'
import { until } from '../support/until.ts'

const words = ['Zephyrine', 'quokkas', 'obsidian', 'kumquats', 'Xylophonic', 'marzipan', 'verdigris']
const sentence = 'Zephyrine quokkas juggle obsidian kumquats while Xylophonic choirs weigh marzipan against verdigris. '
const prompt = sentence.repeat(4)
const intake = 'kv:written-by-a-bridge'

/** Every key with what it holds, as bytes. */
async function dumped({ client }: RedisServer): Promise<Map<string, Buffer>> {
  const places = new Map<string, Buffer>()
  for (const key of await client.keys('*')) {
    const type = await client.type(key)
    const read: Record<string, readonly [string, ...string[]]> = {
      string: ['GET', key],
      stream: ['XRANGE', key, '-', '+'],
      hash: ['HGETALL', key],
      list: ['LRANGE', key, '0', '-1'],
      set: ['SMEMBERS', key],
      zset: ['ZRANGE', key, '0', '-1', 'WITHSCORES'],
    }
    const [command, ...args] = read[type] ?? assert.fail(`a key of type ${type}`)
    places.set(`Redis ${key}`, flat(await client.callBuffer(command, args)))
  }
  places.set('the names of the keys', Buffer.from([...places.keys()].join('\n')))
  return places
}

/** Nested answers in a row, each value on its own: what one value holds lies in one piece. */
function flat(reply: unknown): Buffer {
  if (reply instanceof Buffer) return reply
  if (Array.isArray(reply)) return Buffer.concat(reply.flatMap((item) => [flat(item), Buffer.from('\n')]))
  return Buffer.from(String(reply))
}

test('a prompt and its token ids are nowhere that a router leaves anything, beside the stream of the operator’s own bridge', async (t) => {
  const redis = await startRedis(t)
  const proxy = await recordingProxy(t, redis.port)
  // Options that name files of the routers' own name them in here.
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-secrecy-'))
  const options = {
    workers: 2,
    worker: (index: number) => (index === 0 ? {} : { events: { redis: intake } }),
    config: {
      log: { level: 'debug' },
      redis: { url: `redis://127.0.0.1:${proxy.port}` },
      keys: { secret: 'a secret of this deployment' },
    },
  }
  const fleet = await fleetFor(t, options)
  const replicaLog: LogLine[] = []
  const replica = await startRouter(configOf(options, fleet.simulators.urls), { log: collectingLog(replicaLog) })
  t.after(() => replica.stop())

  const tokenized = await fleet.post('/tokenize', { model, prompt })
  const { tokens } = (await tokenized.json()) as { tokens: number[] }
  const search = new LeakSearch({ words, tokens })
  const written = { type: 'stored', hashes: ['1', '2'], tokens: tokens.slice(0, 32), block_size: 16 }
  const event = ['BlockStored', [3], 2, tokens.slice(32, 48), 16, null, 'GPU', null]
  const entries = [
    { v: '1', seq: '0', ts: '1', events: JSON.stringify([written]), note: sentence },
    { v: '1', seq: '1', payload: encodeMsgpack([2, [event], 0]) },
  ]
  for (const entry of entries) await redis.client.xadd(intake, '*', ...Object.entries(entry).flat())

  const messages = [{ role: 'user', content: prompt }]
  for (const router of [fleet.publicUrl, replica.publicUrl]) {
    const send = async (path: string, body: unknown): Promise<number> => {
      const answer = await postTo(router + path, body, { headers: { 'x-session-id': prompt, 'x-request-id': prompt } })
      await answer.text()
      return answer.status
    }
    assert.equal(await send('/v1/chat/completions', { model, messages, max_tokens: 4 }), 200)
    assert.equal(await send('/v1/chat/completions', { model, messages, max_tokens: 4, stream: true }), 200)
    assert.equal(await send('/v1/completions', { model, prompt, max_tokens: 4 }), 200)
    assert.equal(await send('/v1/completions', { model, prompt: tokens, max_tokens: 4 }), 200)
    assert.equal(await send('/v1/responses', { model, input: prompt, max_output_tokens: 16 }), 200)
    assert.equal(await send('/v1/messages', { model, messages, max_tokens: 4 }), 200)
    assert.equal(await send('/v1/chat/completions', { model, messages: prompt }), 400)
    assert.equal(await send('/v1/completions', `{"model":"${model}","prompt":"${prompt}"`), 400)
    assert.equal(await send('/v1/completions', { model: prompt, prompt }), 404)
  }
  // Whatever was routed where: this engine tells both routers of the prompt, with its token ids.
  const [publishing = ''] = fleet.simulators.urls
  assert.equal((await postTo(`${publishing}/v1/completions`, { model, prompt, max_tokens: 4 })).status, 200)
  for (const url of [fleet.adminUrl, replica.adminUrl])
    await until(
      async () => {
        const { workers } = (await (await fetch(`${url}/admin/workers`)).json()) as { workers: readonly WorkerView[] }
        const [own, bridged] = workers
        return (own?.map.blocks.gpu ?? 0) >= Math.floor(tokens.length / 16) && bridged?.map.blocks.gpu === 3
      },
      'both engines’ events are in the map',
      15_000,
    )

  const places = await dumped(redis)
  const bridged = places.get(`Redis ${intake}`) ?? assert.fail('the bridge’s stream is there')
  places.delete(`Redis ${intake}`)
  for (const [index, bytes] of proxy.sent().entries()) places.set(`what was sent to Redis, ${index}`, bytes)
  for (const file of readdirSync(folder)) places.set(`file ${file}`, readFileSync(join(folder, file)))
  places.set('log', Buffer.from(JSON.stringify(fleet.log)))
  places.set('log of the replica', Buffer.from(JSON.stringify(replicaLog)))
  for (const [name, url] of [
    ['router', fleet.adminUrl],
    ['replica', replica.adminUrl],
  ] as const) {
    for (const path of ['/metrics', '/admin/workers', '/admin/map', '/admin/decisions?limit=1000', '/readyz'])
      places.set(`${path} of the ${name}`, Buffer.from(await (await fetch(url + path)).arrayBuffer()))
    const explained = await postTo(`${url}/admin/explain`, { model, prompt })
    places.set(`/admin/explain of the ${name}`, Buffer.from(await explained.arrayBuffer()))
  }

  // The search has something to search, and finds what is there to be found.
  assert.ok(places.has('Redis {warmroute}:log-id'))
  for (const [place, bytes] of places) assert.ok(bytes.length > 0 || place.startsWith('what was sent'), place)
  assert.ok(proxy.sent().some((bytes) => bytes.includes('XREAD')))
  assert.deepEqual(search.formsIn(bridged), ['a word', 'token ids as MessagePack', 'token ids in decimal'])
  assert.deepEqual(search.formsByPlace(places), {})
})

test('the search finds what is planted, in every form', () => {
  const tokens = [60, 71, 1445, 91, 84, 804, 3203, 81, 77, 77, 517, 1211, 1820, 1817, 1236]
  const search = new LeakSearch({ words: ['Zephyrine'], tokens })
  const buffers = {
    'a word': Buffer.from('{"text":"the Zephyrine one"}'),
    'a word in UTF-16': Buffer.from('the Zephyrine one', 'utf16le'),
    'a word in hex': Buffer.from(Buffer.from('the Zephyrine one').toString('hex')),
    'token ids as u16 LE': Buffer.from(Uint16Array.from(tokens.slice(4, 7)).buffer),
    'token ids as u16 BE': Buffer.from(Uint16Array.from(tokens.slice(4, 7)).buffer).swap16(),
    'token ids as u32 LE': Buffer.from(Uint32Array.from(tokens.slice(9, 12)).buffer),
    'token ids as u32 BE': Buffer.from(Uint32Array.from(tokens.slice(9, 12)).buffer).swap32(),
    'token ids as u64 LE': Buffer.from(BigUint64Array.from(tokens.slice(0, 3).map(BigInt)).buffer),
    'token ids as f64 LE': Buffer.from(Float64Array.from(tokens.slice(0, 3)).buffer),
    'token ids as varints': Buffer.of(0x9c, 0x0e, 0x99, 0x0e, 0xd4, 0x09),
    'token ids as signed varints': Buffer.of(0xb8, 0x1c, 0xb2, 0x1c, 0xa8, 0x13),
    'token ids as MessagePack': encodeMsgpack(tokens.slice(5, 9)),
    'token ids in decimal': Buffer.from('prompt: [517, 1211,\n1820]'),
  }
  for (const [form, bytes] of Object.entries(buffers)) {
    assert.ok(search.formsIn(Buffer.concat([Buffer.from('x'), bytes, Buffer.from('x')])).includes(form), form)
    for (const packed of [zstdCompressSync(bytes), deflateSync(bytes)])
      assert.ok(search.formsIn(Buffer.concat([Buffer.from('head'), packed, Buffer.from('tail')])).includes(form), form)
  }
  for (const offset of ['', 'a', 'ab'])
    assert.ok(search.formsIn(Buffer.from(btoa(`${offset}Zephyrine one`))).includes('a word in base64'), offset)
})

test('the search finds nothing in what only resembles it', () => {
  const search = new LeakSearch({ words: ['Zephyrine'], tokens: [517, 1211, 1820] })
  const others = ['zephyrs and quotas', '[517, 1211]', '[1517, 1211, 1820]', '[517, 1211, 18201]', '517 1820 1211']
  for (const text of others) assert.deepEqual(search.formsIn(Buffer.from(text)), [], text)
  assert.deepEqual(search.formsIn(Buffer.from(Uint32Array.of(517, 1211, 1821).buffer)), [])
})
