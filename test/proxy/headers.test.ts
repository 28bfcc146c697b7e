import assert from 'node:assert/strict'
import { test } from 'node:test'
import { answerHeaders, requestHeaders } from '../../src/proxy/headers.ts'

function forwarded(
  raw: string[],
  worker: Record<string, string> = {},
  rank: number | null = null,
  withoutKey = false,
): Record<string, string> {
  const flat = requestHeaders(raw, { requestId: 'id-1', rank, worker, forwarded: [], withoutKey })
  return Object.fromEntries(flat.flatMap((name, index) => (index % 2 === 0 ? [[name, flat[index + 1]!]] : [])))
}

test('what belongs to the client’s connection stays there, and the rest goes on as it came', () => {
  const sent = forwarded([
    'Host',
    'router',
    'Connection',
    'keep-alive, X-Hop',
    'X-Hop',
    '1',
    'Content-Type',
    'application/json',
    'X-Custom',
    'a b',
    'TE',
    'trailers',
    'Content-Length',
    '3',
  ])
  assert.deepEqual(sent, {
    'content-type': 'application/json',
    'x-custom': 'a b',
    'accept-encoding': 'identity',
    'x-request-id': 'id-1',
  })
})

test('headers that engines would obey from anyone are dropped', () => {
  const sent = forwarded([
    'X-Data-Parallel-Rank',
    '3',
    'X-Override-Priority',
    '9',
    'X-SMG-Routing-Key',
    'k',
    'X-Warmroute-Explain',
    '1',
  ])
  assert.deepEqual(Object.keys(sent), ['accept-encoding', 'x-request-id'])
})

test('the client’s authorization goes on unless the worker has a key of its own', () => {
  assert.equal(forwarded(['Authorization', 'Bearer client'])['authorization'], 'Bearer client')
  assert.equal(
    forwarded(['Authorization', 'Bearer client'], { authorization: 'Bearer worker' })['authorization'],
    'Bearer worker',
  )
})

test('a key that was for the router stays here', () => {
  const keys = ['Authorization', 'Bearer client', 'X-API-Key', 'client']
  assert.deepEqual(Object.keys(forwarded(keys, {}, null, true)), ['accept-encoding', 'x-request-id'])
  assert.equal(forwarded(keys, { authorization: 'Bearer worker' }, null, true)['authorization'], 'Bearer worker')
})

test('a data-parallel rank is named to the engine', () => {
  assert.equal(forwarded([], {}, 2)['x-data-parallel-rank'], '2')
})

test('answers lose only what belongs to the worker’s connection', () => {
  const raw = [
    'Content-Type',
    'text/event-stream',
    'Connection',
    'close',
    'Transfer-Encoding',
    'chunked',
    'X-Request-Id',
    'theirs',
    'Set-Cookie',
    'a=1',
    'set-cookie',
    'b=2',
  ]
  assert.deepEqual(
    answerHeaders(
      raw.map((text) => Buffer.from(text)),
      ['x-request-id', 'ours'],
    ),
    ['Content-Type', 'text/event-stream', 'Set-Cookie', 'a=1', 'set-cookie', 'b=2', 'x-request-id', 'ours'],
  )
})

test('what the router says itself no worker says in its name', () => {
  const theirs = ['Request-Id', 'theirs', 'X-Warmroute-Worker', 'other', 'X-Other', '1']
  assert.deepEqual(answerHeaders(theirs, ['request-id', 'ours']), ['X-Other', '1', 'request-id', 'ours'])
})
