import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { test } from 'node:test'
import { isTrusted } from '../../src/http/client.ts'
import { forwardedOf, TrustedProxies } from '../../src/http/forwarded.ts'
import { requestHeaders } from '../../src/proxy/headers.ts'

function request(remoteAddress: string, headers: Record<string, string>, encrypted = false): IncomingMessage {
  const socket = { remoteAddress, ...(encrypted ? { encrypted } : {}) }
  return { socket, headers: { host: 'api.example', ...headers } } as unknown as IncomingMessage
}

const given = {
  'x-forwarded-for': '203.0.113.9',
  'x-forwarded-proto': 'https',
  'x-forwarded-host': 'public.example',
  'x-forwarded-port': '443',
  forwarded: 'for=203.0.113.9',
  'x-real-ip': '203.0.113.9',
}

test('what a stranger says about where it comes from is replaced by what the connection shows', () => {
  const proxies = new TrustedProxies(['10.0.0.0/8'])
  assert.deepEqual(forwardedOf(request('192.0.2.1', given, true), proxies), [
    'x-forwarded-for',
    '192.0.2.1',
    'x-forwarded-proto',
    'https',
    'x-forwarded-host',
    'api.example',
  ])
})

test('a trusted proxy’s word is kept, and the proxy itself is added', () => {
  const proxies = new TrustedProxies(['10.0.0.0/8', '2001:db8::/32', '192.0.2.7'])
  for (const peer of ['10.1.2.3', '::ffff:10.1.2.3', '2001:db8::1', '192.0.2.7']) {
    const shown = peer.replace('::ffff:', '')
    assert.deepEqual(forwardedOf(request(peer, given), proxies), [
      'x-forwarded-for',
      `203.0.113.9, ${shown}`,
      'x-forwarded-proto',
      'https',
      'x-forwarded-host',
      'public.example',
      'x-forwarded-port',
      '443',
      'forwarded',
      'for=203.0.113.9',
      'x-real-ip',
      '203.0.113.9',
    ])
    assert.equal(forwardedOf(request(peer, {}), proxies)[1], shown)
  }
  for (const peer of ['11.0.0.1', '192.0.2.8', '2001:db9::1', '']) {
    assert.equal(proxies.sent(request(peer, given)), false, peer)
  }
})

test('a client’s own forwarding headers never go on as they came', () => {
  const raw = ['X-Forwarded-For', 'evil', 'X-Forwarded-Prefix', '/evil', 'Forwarded', 'for=evil', 'X-Real-IP', 'evil']
  const headers = requestHeaders(raw, {
    requestId: 'id',
    rank: null,
    worker: {},
    withoutKey: false,
    forwarded: ['x-forwarded-for', '192.0.2.1'],
  })
  assert.equal(headers.join(' ').includes('evil'), false)
  assert.equal(headers[headers.indexOf('x-forwarded-for') + 1], '192.0.2.1')
})

test('a client behind a proxy on loopback is not taken for one on loopback', () => {
  assert.equal(isTrusted(request('127.0.0.1', {}), 'loopback', false), true)
  assert.equal(isTrusted(request('::ffff:127.0.0.1', {}), 'loopback', false), true)
  for (const name of [...Object.keys(given).filter((name) => name !== 'x-forwarded-port'), 'via']) {
    assert.equal(isTrusted(request('127.0.0.1', { [name]: 'x' }), 'loopback', false), false, name)
  }
  assert.equal(isTrusted(request('192.0.2.1', {}), 'loopback', false), false)
})
