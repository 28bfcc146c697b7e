import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'

const folder = new URL('../../src/replication/', import.meta.url)

test('replicas go by monotonic clocks: no wall clock is read', () => {
  const files = readdirSync(folder).filter((name) => name.endsWith('.ts'))
  assert.ok(files.length > 5)
  for (const name of files) {
    assert.doesNotMatch(readFileSync(new URL(name, folder), 'utf8'), /Date\.now|new Date|timeOrigin/, name)
  }
})
