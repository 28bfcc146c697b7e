import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { checkConfig } from '../../src/config/load.ts'
import { deploymentSecret, fingerprintOf } from '../../src/main/secret.ts'

const pools = [{ model: 'm', tokenizer: './t', workers: [{ url: 'http://127.0.0.1:8000' }] }]
const secretOf = (config: object, file: string | null = null) =>
  deploymentSecret(checkConfig({ pools, ...config }), file)

test('replicas of one Redis agree on a secret that nobody configured; another password or prefix makes another one', () => {
  const one = secretOf({ redis: { url: 'redis://:pass@10.0.0.1:6379' } })
  assert.equal(one.origin, 'shared')
  const same = secretOf({ redis: { sentinel: { name: 'm', nodes: ['10.0.0.2:26379'] }, password: 'pass' } })
  assert.deepEqual(same, one)
  for (const redis of [
    { url: 'redis://:other@10.0.0.1:6379' },
    { url: 'redis://:pass@10.0.0.1:6379', prefix: 'team-a' },
    { url: 'redis://10.0.0.1:6379' },
  ])
    assert.notDeepEqual(secretOf({ redis }).bytes, one.bytes)
})

test('a configured secret counts before all others, and alone a router draws one anew each time', () => {
  const given = secretOf({ keys: { secret: 'the operator’s own' }, redis: { url: 'redis://10.0.0.1' } })
  assert.deepEqual(given, { bytes: Buffer.from('the operator’s own'), origin: 'config' })
  assert.notDeepEqual(secretOf({}).bytes, secretOf({}).bytes)
})

test('beside a snapshot file the secret is kept, for its owner only', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-secret-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'map')
  const first = secretOf({}, file)
  assert.equal(first.origin, 'file')
  assert.equal(first.bytes.length, 32)
  assert.deepEqual(secretOf({}, file).bytes, first.bytes)
  assert.equal(statSync(`${file}.secret`).mode & 0o777, 0o600)
  assert.throws(() => secretOf({}, join(folder, 'absent', 'map')), { code: 'CONFIG_UNREADABLE' })
})

test('a fingerprint tells secrets apart', () => {
  assert.match(fingerprintOf(Buffer.from('a')), /^[0-9a-f]{8}$/)
  assert.notEqual(fingerprintOf(Buffer.from('a')), fingerprintOf(Buffer.from('b')))
})
