import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { createKeyMaker, localHashes } from '../../src/kv/keys.ts'

interface LocalVector {
  readonly tokens: readonly number[]
  readonly extras: readonly string[]
  readonly local: string
}

const page = readFileSync(new URL('../../docs/event-stream.md', import.meta.url), 'utf8')

test('the local hashes that the docs show are those of the code', async () => {
  const [, secret = ''] = /under the secret `([^`]+)`/.exec(page) ?? []
  const [, text = '[]'] = /Vectors.*?```json\n(.*?)```/s.exec(page) ?? []
  const vectors = JSON.parse(text) as readonly LocalVector[]
  assert.equal(vectors.length, 6)
  const maker = await createKeyMaker(Buffer.from(secret))
  for (const { tokens, extras, local } of vectors) {
    const scope = maker.scope({ model: 'any', blockSize: tokens.length, adapter: null })
    const [low = 0, high = 0] = localHashes(Uint32Array.from(tokens), scope, [extras])
    const hex = [high, low].map((word) => word.toString(16).padStart(8, '0')).join('')
    assert.equal(`0x${hex}`, local, String(tokens))
  }
})
