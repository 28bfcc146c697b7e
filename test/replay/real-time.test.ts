import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { LoadOptions } from '../../src/replay/arrivals.ts'
import type { Question } from '../../src/replay/real-time/endpoint.ts'
import type { Answer } from '../../src/replay/real-time/exchange.ts'
import { Pace } from '../../src/replay/real-time/pace.ts'
import { play, type Played } from '../../src/replay/real-time/play.ts'
import { Troubles } from '../../src/replay/real-time/troubles.ts'
import { replay } from '../../src/replay/replay.ts'
import type { Trace, TraceRequest } from '../../src/replay/traces/trace.ts'

const request = (thinkMs: number, blocks: number): TraceRequest => ({
  ...{ thinkMs, recordedMs: 0, promptTokens: 16 * blocks + 3, outputTokens: 20 },
  blocks: Uint32Array.from([0, blocks]),
})

const chats: Trace = {
  ...{ name: 'chats', format: 'plain', blockTokens: 16 },
  sessions: ['a', 'b', 'c', 'd'].map((id) => ({
    ...{ id, startMs: null, commonBlocks: 1 },
    requests: [request(0, 4), request(100, 8), request(100, 12)],
  })),
}

const arrivals: Trace = {
  ...chats,
  sessions: [0, 400, 900].map((startMs) => ({ id: `${startMs}`, startMs, commonBlocks: 0, requests: [request(0, 4)] })),
}

type Ending = (question: Question) => { readonly kind: Answer['kind']; readonly why?: string }

const answered: Ending = () => ({ kind: 'answered' })

interface Setting {
  readonly load?: LoadOptions
  readonly ending?: Ending
  readonly tokens?: readonly number[] | null
  readonly signal?: AbortSignal
}

interface Heard extends Played {
  readonly questions: readonly Question[]
  readonly troubles: readonly string[]
}

/** Plays against an endpoint that answers at once. */
async function playAt(
  trace: Trace,
  { load = {}, ending = answered, tokens = [], signal }: Setting = {},
): Promise<Heard> {
  const clock = (): number => performance.now()
  const questions: Question[] = []
  const troubles = new Troubles()
  const told = { text: ' stone', outputTokens: 20, cachedTokens: 16, worker: 'http://two', predictedCachedTokens: 32 }
  const played = await play({
    ...{ trace, load, seed: 1, timeoutMs: 5_000, workers: ['http://one', 'http://two'], troubles },
    ...{ pace: new Pace(10, clock), signal: signal ?? new AbortController().signal },
    endpoint: {
      tokensOf: () => Promise.resolve(tokens),
      ask: (question) => {
        questions.push(question)
        const nowMs = clock()
        const times = { sentMs: nowMs, firstTokenMs: nowMs + 4, lastTokenMs: nowMs + 42, endedMs: nowMs + 42 }
        return Promise.resolve({ ...times, ...told, ...ending(question) } as Answer)
      },
    },
  })
  return { ...played, questions, troubles: troubles.lines }
}

test('the same users do the same as in virtual time, and times are the trace’s', async () => {
  const engine = { blockSize: 16, capacityBlocks: 400 }
  const virtual = await replay({ trace: chats, workers: 2, engine, policy: 'round-robin', seed: 1, load: { users: 2 } })
  const { rows, complete, questions } = await playAt(chats, { load: { users: 2 } })
  const named = (all: Played['rows']): string[] => all.map(({ visit, turn }) => `${visit.session.id} ${turn}`).sort()
  assert.deepEqual(named(rows), named(virtual.rows))
  assert.equal(complete, true)
  for (const row of rows) {
    assert.ok(Math.abs(row.ttftMs - 40) < 1e-6 && Math.abs(row.itlMs - 380 / 19) < 1e-6)
    assert.deepEqual([row.worker, row.cachedTokens, row.predictedCachedTokens], [1, 16, 32])
  }
  assert.equal(questions[0]?.timeoutMs, 500)
  assert.match(questions[0].session ?? '', /^[abcd]\/0$/)
})

test('a turn is sent after the answer to the one before it and its pause', async () => {
  const { rows } = await playAt(chats)
  for (const row of rows) {
    const before = rows.find(({ visit, turn }) => visit === row.visit && turn === row.turn - 1)
    if (before !== undefined) assert.ok(row.sentMs >= before.endedMs + 100)
  }
})

test('an open loop is sent at its times, faster where that is asked for', async () => {
  const { rows } = await playAt(arrivals, { load: { rate: 2 } })
  const sent = rows.map(({ sentMs }) => sentMs).sort((a, b) => a - b)
  assert.equal(sent.length, 3)
  for (const [index, ms] of [0, 200, 450].entries()) assert.ok((sent[index] ?? 0) >= ms, String(sent))
})

test('what was generated is part of the next prompt, and made-up tokens where nobody tells', async () => {
  const generated = Array.from({ length: 20 }, (_, i) => 3_900 + i)
  const first = { ...chats, sessions: chats.sessions.slice(0, 1) }
  const told = await playAt(first, { tokens: generated })
  assert.deepEqual([...(told.questions[1]?.prompt.subarray(67, 87) ?? [])], generated)
  const untold = await playAt(first, { tokens: null })
  assert.notDeepEqual([...(untold.questions[1]?.prompt.subarray(67, 87) ?? [])], generated)
  assert.match(untold.troubles[0] ?? '', /^2 × an answer could not be made tokens/)
})

test('each sort of failure is a row of its own, and the session goes on', async () => {
  const endings = [
    { kind: 'timed out' },
    { kind: 'refused', why: 'HTTP 429: full' },
    { kind: 'failed', why: 'ECONNRESET' },
  ] as const
  const first = { ...chats, sessions: chats.sessions.slice(0, 1) }
  const { rows, troubles } = await playAt(first, {
    ending: ({ prompt }) => endings[(prompt.length - 67) / 64] ?? { kind: 'answered' },
  })
  assert.deepEqual(
    rows.map(({ outcome, ttftMs }) => [outcome, ttftMs]),
    [
      ['timed out', 5_000],
      ['refused', 0],
      ['failed', 0],
    ],
  )
  assert.deepEqual(troubles, ['1 × HTTP 429: full', '1 × ECONNRESET'])
})

test('nothing is sent after the duration, nor once the end was asked for', async () => {
  const { rows, complete } = await playAt(chats, { load: { users: 2, durationMs: 600 } })
  assert.ok(complete && rows.length > 0 && rows.every(({ sentMs }) => sentMs < 600))
  const end = new AbortController()
  const ending: Ending = () => {
    end.abort()
    return { kind: 'answered' }
  }
  const ended = await playAt(chats, { load: { users: 1 }, ending, signal: end.signal })
  assert.deepEqual([ended.complete, ended.rows.length], [false, 1])
})

test('of kinds of trouble only so many are told apart', () => {
  const troubles = new Troubles()
  for (let kind = 0; kind < 30; kind++) troubles.add(`fault ${kind}`)
  troubles.add('fault 3')
  assert.deepEqual(
    [troubles.lines[0], troubles.lines.at(-1), troubles.lines.length],
    ['2 × fault 3', '10 × others', 21],
  )
})
