import assert from 'node:assert/strict'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { readTrace, type ReadTraceOptions } from '../../src/replay/traces/read.ts'
import {
  blockCount,
  blockIds,
  eachPart,
  promptTokenIds,
  RunBuilder,
  sharedRuns,
  traceFigures,
  type Trace,
} from '../../src/replay/traces/trace.ts'

const fixture = (name: string): string => fileURLToPath(new URL(`../fixtures/traces/${name}`, import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'traces-'))
let files = 0

function read(lines: readonly (string | object)[], options: ReadTraceOptions = {}): Promise<Trace> {
  const path = join(folder, `${files++}.jsonl`)
  writeFileSync(path, lines.map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join(''))
  return readTrace(path, options)
}

test('the recorded agent sessions are read whole, with what they share', async () => {
  const trace = await readTrace(fixture('agentic_sessions.jsonl'))
  const { sessions, requests, blocks, distinctBlocks, idealHitRatio } = traceFigures(trace)
  assert.deepEqual(
    { format: trace.format, blockTokens: trace.blockTokens, sessions, requests, blocks },
    { format: 'agentic', blockTokens: 64, sessions: 487, requests: 32_914, blocks: 62_538_712 },
  )
  // 0.9628 and 2,326,124 without the preambles that sessions have in common.
  assert.ok(idealHitRatio > 0.9628 && idealHitRatio < 0.965, String(idealHitRatio))
  assert.ok(distinctBlocks < 2_326_124 && distinctBlocks > 2_200_000, String(distinctBlocks))
})

test('a cut of Mooncake’s conversations is read whole, and its batches are spread', async () => {
  const trace = await readTrace(fixture('mooncake_conversation.jsonl'))
  const { requests, idealHitRatio } = traceFigures(trace)
  assert.equal(requests, 3_000)
  assert.ok(Math.abs(idealHitRatio - 0.3142) < 0.0001, String(idealHitRatio))
  const startsMs = trace.sessions.map(({ startMs }) => startMs ?? NaN)
  assert.deepEqual(
    startsMs,
    startsMs.toSorted((a, b) => a - b),
  )
  assert.equal(new Set(startsMs).size, 3_000)
})

const session = {
  id: 's',
  block: 64,
  tool_tokens: 100,
  system_tokens: 60,
  requests: [
    { t: 0, in: 200, out: 70, api: 2, think: 0, ids: [[1, 3]] },
    {
      t: 9,
      in: 330,
      out: 5,
      api: null,
      think: 7,
      ids: [
        [1, 3],
        [5, 6],
      ],
    },
    { t: 20, in: 330, out: 0, api: 1, think: null, ids: [[1, 5]] },
  ],
}

test('sessions with the same preamble begin with the same blocks, and share no others', async () => {
  const { sessions } = await read([session, { ...session, id: 'twin' }, { ...session, id: 'other', tool_tokens: 99 }])
  const [one, twin, other] = sessions.map(({ requests }) => requests.map(({ blocks }) => [...blockIds(blocks)]))
  const ids = (lists: readonly number[][] | undefined): Set<number> => new Set(lists?.flat())
  const common = (a: Set<number>, b: Set<number>): number => [...a].filter((id) => b.has(id)).length
  assert.deepEqual(one?.[0]?.slice(0, 2), twin?.[0]?.slice(0, 2))
  assert.equal(common(ids(one), ids(twin)), 2)
  assert.equal(common(ids(one), ids(other)) + common(ids(twin), ids(other)), 0)
  // Ids 1 to 3, 5 and 6, and 4 to which the last turn comes back.
  assert.equal(ids(one).size, 6)
})

test('a turn starts after its pause, which follows from the times where it was not recorded', async () => {
  const { sessions } = await read([session])
  assert.deepEqual(
    sessions[0]?.requests.map(({ thinkMs, recordedMs, outputTokens }) => ({ thinkMs, recordedMs, outputTokens })),
    [
      { thinkMs: 0, recordedMs: 0, outputTokens: 70 },
      { thinkMs: 7_000, recordedMs: 9_000, outputTokens: 5 },
      { thinkMs: 11_000, recordedMs: 20_000, outputTokens: 1 },
    ],
  )
})

test('one’s own requests have times, or sessions with pauses', async () => {
  const { sessions, blockTokens } = await read([
    { format: 'warmroute-trace', block_tokens: 64 },
    { session: 'a', at_ms: 50, prompt_tokens: 640, output_tokens: 80, blocks: [[0, 9]] },
    { at_ms: 10, id: 'lone', prompt_tokens: 65, output_tokens: 1, blocks: [7, 'x'] },
    { session: 'a', think_ms: 4_000, prompt_tokens: 900, output_tokens: 60, blocks: [[0, 9], 'x', 'y'] },
  ])
  assert.equal(blockTokens, 64)
  const [lone, a] = sessions
  assert.deepEqual([lone?.id, lone?.startMs, a?.id, a?.startMs], ['lone', 10, 'a', 50])
  const last = blockIds(a?.requests[1]?.blocks ?? new Uint32Array(0))
  assert.deepEqual([...last.subarray(0, 10)], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  assert.equal(last[10], blockIds(lone?.requests[0]?.blocks ?? new Uint32Array(0))[1], 'equal names are equal blocks')
  assert.equal(a?.requests[1]?.thinkMs, 4_000)
})

test('a decision log is an open loop of keys in the order of arrival, whatever the order of its lines', async () => {
  const keys = (...words: number[]): string => Buffer.from(Uint32Array.from(words).buffer).toString('base64')
  const line = { model: 'm', block_size: 16, prompt_tokens: 40, output_tokens: 7 }
  const head = { format: 'warmroute-decisions', version: 1 }
  const { sessions } = await read([
    head,
    { ...line, time_ms: 1_000_500, keys: keys(1, 2, 5, 6) },
    { ...line, time_ms: 1_000_000, keys: keys(1, 2, 3, 4) },
    head,
    { ...line, time_ms: 1_000_700, prompt_tokens: 9, keys: '' },
  ])
  assert.deepEqual(
    sessions.map(({ startMs }) => startMs),
    [0, 500, 700],
  )
  const [first, second, third] = sessions.map(({ requests }) => blockIds(requests[0]?.blocks ?? new Uint32Array(0)))
  assert.equal(first?.[0], second?.[0])
  assert.notEqual(first?.[1], second?.[1])
  assert.equal(third?.length, 0)
})

test('of a log of several models one is to be named', async () => {
  const head = { format: 'warmroute-decisions', version: 1 }
  const line = { time_ms: 1, block_size: 16, prompt_tokens: 5, output_tokens: 7, keys: '' }
  const lines = [head, { ...line, model: 'a' }, { ...line, model: 'b' }, { ...line, model: 'b', time_ms: 2 }]
  await assert.rejects(read(lines), { code: 'TRACE_INVALID', message: /line 3: "model" must be "a"/ })
  assert.equal((await read(lines, { model: 'b' })).sessions.length, 2)
  await assert.rejects(read(lines, { model: 'c' }), { message: /no requests of that model/ })
})

test('faults name line and field', async () => {
  const mooncake = { timestamp: 5, input_length: 600, output_length: 1, hash_ids: [1, 2] }
  const plain = { format: 'warmroute-trace', block_tokens: 64 }
  const cases: [lines: (string | object)[], fault: RegExp][] = [
    [[mooncake, '{'], /line 2 is not JSON/],
    [[mooncake, '[]'], /line 2 is no JSON object/],
    [[mooncake, '', { ...mooncake, timestamp: 4 }], /line 3: "timestamp" must be no earlier/],
    [[{ ...mooncake, hash_ids: [1] }], /line 1: "hash_ids" must be an id for each 512/],
    [[{ ...mooncake, output_length: 'x' }], /line 1: "output_length" must be a whole number.*"x"/],
    [[{ ...session, block: 0 }], /line 1: "block" must be/],
    [[{ ...session, requests: [{ ...session.requests[0], ids: [[1, 2]] }] }], /"requests" 1: "ids" must be .*names 2/],
    [[plain, { prompt_tokens: 5, output_tokens: 1, blocks: [] }], /line 2: "at_ms" must be.*missing/],
    [[plain, { at_ms: 0, prompt_tokens: 5, output_tokens: 1, blocks: [1, 2] }], /line 2: "blocks" must be.*has 2/],
    [[{ question: 1 }], /line 1 is of no known format/],
    [[], /has no requests/],
  ]
  for (const [lines, message] of cases) await assert.rejects(read(lines), { code: 'TRACE_INVALID', message })
  await assert.rejects(readTrace(join(folder, 'none')), { code: 'CONFIG_UNREADABLE' })
  await assert.rejects(readTrace(folder), { code: 'CONFIG_UNREADABLE', message: /folder/ })
  await assert.rejects(read([mooncake], { format: 'tarot' }), { code: 'CONFIG_INVALID', message: /"tarot".*mooncake/ })
})

test('runs hold the ids that were put in, and tell what two rows share', () => {
  const rows = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 12 })
  fc.assert(
    fc.property(rows, rows, (one, other) => {
      const runs = (ids: readonly number[]) => {
        const builder = new RunBuilder()
        for (const id of ids) builder.add(id)
        return builder.done()
      }
      assert.deepEqual([...blockIds(runs(one))], one)
      assert.equal(blockCount(runs(one)), one.length)
      let shared = 0
      while (shared < Math.min(one.length, other.length) && one[shared] === other[shared]) shared++
      assert.equal(sharedRuns(runs(one), runs(other)), shared)
    }),
  )
})

test('a walk over parts of blocks tells each one’s block, from any part to any other', () => {
  const row = fc.array(fc.nat(5), { maxLength: 12 })
  fc.assert(
    fc.property(row, fc.integer({ min: 1, max: 5 }), fc.nat(70), fc.nat(70), (ids, parts, from, end) => {
      const builder = new RunBuilder()
      for (const id of ids) builder.add(id)
      const expected = ids
        .flatMap((id, block) => Array.from({ length: parts }, (_, part) => [id, block, part, block * parts + part]))
        .slice(from, Math.max(from, end))
      const told: number[][] = []
      eachPart(builder.done(), parts, from, end, (...place) => told.push(place))
      assert.deepEqual(told, expected)
    }),
  )
})

test('equal blocks become equal tokens, and a request’s own tokens are its own', async () => {
  const trace = await read([session])
  const [first, second] = trace.sessions[0]?.requests ?? []
  assert.ok(first !== undefined && second !== undefined)
  const one = promptTokenIds(trace, first, 1)
  const two = promptTokenIds(trace, second, 2)
  assert.deepEqual([one.length, two.length], [200, 330])
  assert.deepEqual(one.subarray(0, 192), two.subarray(0, 192))
  assert.notDeepEqual(one.subarray(192), two.subarray(192, 200))
  assert.deepEqual(promptTokenIds(trace, first, 1), one)
})
