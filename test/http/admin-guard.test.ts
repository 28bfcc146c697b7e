import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { test } from 'node:test'
import { hashOfKey } from '../../src/admission/api-keys.ts'
import { adminGuard } from '../../src/http/admin-guard.ts'

function request(url: string, headers: Record<string, string> = {}, method = 'GET'): IncomingMessage {
  return { url, method, headers: { host: '127.0.0.1:8081', ...headers } } as unknown as IncomingMessage
}

const keyHash = hashOfKey('the-admin-key')

test('with a key the admin port opens to it alone, and the probes stay open', () => {
  const admit = adminGuard({ keyHash, mutualTls: false })
  const status = (headers: Record<string, string>, url = '/admin/workers'): number | undefined =>
    admit(request(url, { host: 'router.example', ...headers }))?.status
  assert.equal(status({ authorization: 'Bearer the-admin-key' }), undefined)
  assert.equal(status({ authorization: 'bearer the-admin-key' }), undefined)
  for (const authorization of ['', 'Bearer ', 'Bearer wrong', 'Basic the-admin-key', 'the-admin-key'])
    assert.equal(status({ authorization }), 401, authorization)
  assert.equal(status({}), 401)
  assert.equal(status({ 'x-api-key': 'the-admin-key' }), 401)
  for (const url of ['/healthz', '/readyz', '/readyz?verbose']) assert.equal(status({}, url), undefined)
  for (const url of ['/metrics', '/healthz/', '/healthz/../metrics', '//healthz', '/none'])
    assert.equal(status({}, url), 401, url)
})

test('without a key only a loopback name reaches it, whatever resolves there', () => {
  const admit = adminGuard({ keyHash: null, mutualTls: false })
  for (const host of ['localhost', 'LOCALHOST:8081', '127.0.0.1:8081', '127.1.2.3', '[::1]:8081'])
    assert.equal(admit(request('/admin/workers', { host })), undefined, host)
  for (const host of ['', 'evil.example:8081', '127.0.0.1.evil.example', 'localhost.evil.example', '[::2]', '10.0.0.1'])
    assert.equal(admit(request('/admin/workers', { host }))?.status, 403, host)
  assert.equal(admit(request('/healthz', { host: '10.0.0.1:8081' })), undefined)
})

test('a page of another origin changes nothing', () => {
  for (const guard of [
    adminGuard({ keyHash: null, mutualTls: false }),
    adminGuard({ keyHash: null, mutualTls: true }),
  ]) {
    const from = (origin: string, method = 'POST'): number | undefined =>
      guard(request('/admin/workers', { origin }, method))?.status
    for (const origin of ['http://evil.example', 'null', 'http://127.0.0.1:3000', 'http://localhost:8081', 'garbage'])
      for (const method of ['POST', 'PATCH', 'DELETE', 'PUT']) assert.equal(from(origin, method), 403, origin)
    assert.equal(from('http://127.0.0.1:8081'), undefined, 'its own page may')
    assert.equal(from('http://evil.example', 'GET'), undefined, 'it could not read the answer')
  }
})
