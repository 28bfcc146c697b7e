import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Claims } from '../../src/main/claims.ts'
import { newPool } from '../../src/workers/pool.ts'

const pool = newPool('model')
const urls = (claims: Claims): string[] => [...claims.targets().values()].map(({ source, id }) => `${source} ${id}`)

test('an engine that two sources name is there once, as the more particular one says', () => {
  const claims = new Claims()
  claims.put('discovery', pool, [{ url: 'http://a:1' }, { url: 'http://b:1' }])
  claims.put('config', pool, [{ url: 'http://A:1/' }])
  assert.deepEqual(urls(claims), ['config http://a:1', 'discovery http://b:1'])
  claims.put('config', pool, [])
  assert.deepEqual(urls(claims), ['discovery http://a:1', 'discovery http://b:1'], 'it falls back to the other')
})

test('a source speaks for its own engines of one pool only', () => {
  const claims = new Claims()
  const other = newPool('other')
  claims.put('config', pool, [{ url: 'http://a:1' }])
  claims.put('config', other, [{ url: 'http://b:1' }])
  claims.add('api', pool, { url: 'http://c:1' })
  claims.put('config', pool, [{ url: 'http://d:1' }])
  assert.deepEqual(urls(claims), ['api http://c:1', 'config http://d:1', 'config http://b:1'])
  claims.drop('config', 'http://c:1')
  assert.equal(claims.targets().size, 3, 'what another source named stays')
  claims.drop('api', 'http://c:1')
  claims.dropPool(pool)
  assert.deepEqual(urls(claims), ['config http://b:1'])
})
