// Decision 2: neither a prompt nor its token ids leave the process. One is planted, and everything that the router leaves
// behind is searched for it.
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { deflateSync, zstdCompressSync } from 'node:zlib'
import { fleetFor, model, postTo, type Fleet, type LogLine } from '../support/fleet.ts'
import { LeakSearch } from '../support/leaks.ts'
import { encodeMsgpack } from '../support/msgpack.ts'
import { recordingProxy } from '../support/recording-proxy.ts'
import { startRedis, type RedisServer } from '../support/redis-server.ts'
import { replicaFleet } from '../support/replica-fleet.ts'
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
    // A lease may have run out since, and a snapshot have given way to the next one.
    if (type === 'none') continue
    const read: Record<string, readonly [string, ...string[]]> = {
      string: ['GET', key],
      stream: ['XRANGE', key, '-', '+'],
      hash: ['HGETALL', key],
      list: ['LRANGE', key, '0', '-1'],
      set: ['SMEMBERS', key],
      zset: ['ZRANGE', key, '0', '-1', 'WITHSCORES'],
    }
    const [command, ...args] = read[type] ?? assert.fail(`a key of type ${type}`)
    const value: unknown = await client.callBuffer(command, args)
    if (value !== null) places.set(`Redis ${key}`, flat(value))
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

/** The planted prompt in every way that a client may send it, well and badly. */
async function sendPrompt(publicUrl: string, tokens: readonly number[]): Promise<void> {
  const messages = [{ role: 'user', content: prompt }]
  const send = async (path: string, body: unknown): Promise<number> => {
    const answer = await postTo(publicUrl + path, body, {
      headers: { 'x-session-id': prompt, 'x-request-id': prompt },
    })
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

async function tokensOf(fleet: Fleet): Promise<number[]> {
  const answer = await fleet.post('/tokenize', { model, prompt })
  return ((await answer.json()) as { tokens: number[] }).tokens
}

/** What a router answers its operator. */
async function addAnswers(places: Map<string, Buffer>, name: string, { adminUrl }: Fleet): Promise<void> {
  for (const path of ['/metrics', '/admin/workers', '/admin/map', '/admin/decisions?limit=1000', '/readyz'])
    places.set(`${path} of ${name}`, Buffer.from(await (await fetch(adminUrl + path)).arrayBuffer()))
  const explained = await postTo(`${adminUrl}/admin/explain`, { model, prompt })
  places.set(`/admin/explain of ${name}`, Buffer.from(await explained.arrayBuffer()))
}

const addLog = (places: Map<string, Buffer>, name: string, log: readonly LogLine[]): unknown =>
  places.set(`log of ${name}`, Buffer.from(JSON.stringify(log)))

/** Whether a snapshot was made that has the blocks of the prompt. */
const hasSnapshot = (log: readonly LogLine[], tokens: readonly number[]): boolean =>
  log.some(({ message, fields }) => message === 'snapshot made' && Number(fields['entries']) >= blocksOf(tokens))

const blocksOf = (tokens: readonly number[]): number => Math.floor(tokens.length / 16)

test('a prompt and its token ids are nowhere that replicas leave anything, beside the stream of the operator’s own bridge', async (t) => {
  const redis = await startRedis(t)
  const proxy = await recordingProxy(t, redis.port)
  const { replicas } = await replicaFleet(t, { url: `redis://127.0.0.1:${proxy.port}` }, 2, {
    workers: 3,
    worker: (index: number) => (index === 0 ? { events: { redis: intake } } : {}),
    awaitEvents: false,
    config: { log: { level: 'debug' }, snapshot: { intervalSeconds: 1 } },
  })
  const [first, second] = replicas as [Fleet, Fleet]
  const tokens = await tokensOf(first)
  const search = new LeakSearch({ words, tokens })
  const written = { type: 'stored', hashes: ['1', '2'], tokens: tokens.slice(0, 32), block_size: 16 }
  const event = ['BlockStored', [3], 2, tokens.slice(32, 48), 16, null, 'GPU', null]
  const entries = [
    { v: '1', seq: '0', ts: '1', events: JSON.stringify([written]), note: sentence },
    { v: '1', seq: '1', payload: encodeMsgpack([2, [event], 0]) },
  ]
  for (const entry of entries) await redis.client.xadd(intake, '*', ...Object.entries(entry).flat())

  for (const { publicUrl } of replicas) await sendPrompt(publicUrl, tokens)
  // Whatever was routed where: these engines tell of the prompt, with its token ids.
  for (const url of first.simulators.urls.slice(1))
    assert.equal((await postTo(`${url}/v1/completions`, { model, prompt, max_tokens: 4 })).status, 200)
  for (const replica of replicas)
    await until(
      async () => {
        const [bridged, ...own] = (await replica.workers()).map(({ map }) => map.blocks.gpu)
        return bridged === 3 && own.every((blocks) => blocks >= blocksOf(tokens))
      },
      'all engines’ events are in the map',
      15_000,
    )
  await until(() => replicas.some(({ log }) => hasSnapshot(log, tokens)), 'a snapshot is made', 30_000)

  // What replicas share is there, or there would be nothing to search.
  let places = new Map<string, Buffer>()
  const shared = (...kinds: readonly string[]): string[] =>
    [...places.keys()].filter((place) => kinds.some((kind) => new RegExp(`^Redis {warmroute}:${kind}$`).test(place)))
  const lease = '\\w{8}:lease:http.*'
  const kinds = ['log-id', '\\w{8}:events', '\\w{8}:shared', lease, '\\w{8}:lease:#snapshot']
  const snapshot = ['\\w{8}:snapshot', '\\w{8}:snapshot:\\w+:head', '\\w{8}:snapshot:\\w+:0']
  await until(
    async () => {
      places = await dumped(redis)
      return [...kinds, ...snapshot].every((kind) => shared(kind).length > 0) && shared(lease).length === 2
    },
    'all that replicas share is in Redis',
    10_000,
  )

  const bridged = places.get(`Redis ${intake}`) ?? assert.fail('the bridge’s stream is there')
  places.delete(`Redis ${intake}`)
  for (const [name, replica] of Object.entries({ 'the first': first, 'the second': second }))
    await addAnswers(places, name, replica)
  await Promise.all(replicas.map(({ router }) => router.stop()))
  addLog(places, 'the first', first.log)
  addLog(places, 'the second', second.log)
  for (const [index, bytes] of proxy.sent().entries()) places.set(`what was sent to Redis, ${index}`, bytes)

  // The search has something to search, and finds what is there to be found.
  for (const [place, bytes] of places) assert.ok(bytes.length > 0 || place.startsWith('what was sent'), place)
  for (const command of ['XREAD', 'XADD', 'snapshot:'])
    assert.ok(
      proxy.sent().some((bytes) => bytes.includes(command)),
      command,
    )
  assert.deepEqual(search.formsIn(bridged), ['a word', 'token ids as MessagePack', 'token ids in decimal'])
  assert.deepEqual(search.formsByPlace(places), {})
  const ids = Buffer.from(Uint32Array.from(tokens.slice(0, 24)).buffer)
  const spoiled = shared(...kinds, ...snapshot).map((place): [string, Buffer] => {
    return [place, Buffer.concat([places.get(place) ?? Buffer.of(), zstdCompressSync(ids)])]
  })
  assert.deepEqual(Object.keys(search.formsByPlace(new Map(spoiled))), shared(...kinds, ...snapshot))
})

test('a prompt and its token ids are not in what a router without Redis keeps in files, nor in its logs', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-secrecy-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const config = { log: { level: 'debug' }, snapshot: { file: join(folder, 'map.snapshot') } }
  const fleet = await fleetFor(t, { config })
  const tokens = await tokensOf(fleet)
  const search = new LeakSearch({ words, tokens })
  await sendPrompt(fleet.publicUrl, tokens)
  await fleet.settled()
  const places = new Map<string, Buffer>()
  await addAnswers(places, 'the router', fleet)
  await fleet.router.stop()
  addLog(places, 'the router', fleet.log)

  assert.ok(hasSnapshot(fleet.log, tokens), 'the last snapshot has the prompt’s blocks')
  const files = readdirSync(folder).sort()
  assert.deepEqual(files, ['map.snapshot', 'map.snapshot.secret'])
  for (const file of files) places.set(file, readFileSync(join(folder, file)))
  assert.deepEqual(search.formsByPlace(places), {})
  for (const file of files) {
    const bytes = Buffer.concat([places.get(file) ?? Buffer.of(), zstdCompressSync(prompt)])
    assert.deepEqual(search.formsIn(bytes), ['a word'], file)
  }
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
