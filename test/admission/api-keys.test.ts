import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ApiKeys, hashOfKey, type KeyHeaders } from '../../src/admission/api-keys.ts'
import { anonymous, mayUse, requireModel } from '../../src/admission/caller.ts'
import { RouterError } from '../../src/errors.ts'

const key = 'wr-0123456789abcdef'
const one = [{ id: 'one', hash: hashOfKey(key) }]

function refusal(keys: ApiKeys, headers: KeyHeaders): RouterError {
  try {
    keys.authenticate(headers)
  } catch (error) {
    assert.ok(error instanceof RouterError)
    return error
  }
  return assert.fail('the key was accepted')
}

test('a key opens as a Bearer token and as x-api-key', () => {
  const keys = new ApiKeys(one)
  assert.equal(keys.required, true)
  for (const headers of [
    { authorization: `Bearer ${key}` },
    { authorization: `bearer  ${key}` },
    { 'x-api-key': key },
    { authorization: 'Basic dXNlcjpwYXNz', 'x-api-key': key },
  ])
    assert.equal(keys.authenticate(headers).keyId, 'one')
})

test('a missing key and a wrong one get the same answer', () => {
  const keys = new ApiKeys(one)
  const missing = refusal(keys, {})
  assert.deepEqual([missing.code, missing.status, missing.type], ['AUTHENTICATION_FAILED', 401, 'AuthenticationError'])
  for (const headers of [
    { authorization: 'Bearer ' },
    { authorization: key },
    { authorization: `Bearer ${key}x` },
    { authorization: `Bearer wrong`, 'x-api-key': key },
    { 'x-api-key': `${key}, ${key}` },
    { 'x-api-key': [key] },
    { authorization: `Bearer ${hashOfKey(key)}` },
  ])
    assert.equal(refusal(keys, headers).message, missing.message)
})

test('the hash of the empty key opens nothing', () => {
  const keys = new ApiKeys([{ id: 'empty', hash: hashOfKey('') }])
  refusal(keys, {})
  refusal(keys, { 'x-api-key': '' })
})

test('no error tells the key that was sent', () => {
  assert.doesNotMatch(JSON.stringify(refusal(new ApiKeys(one), { authorization: 'Bearer planted-key' })), /planted/)
})

test('where no keys are configured everyone is anonymous and without limits', () => {
  const keys = new ApiKeys([])
  assert.equal(keys.required, false)
  assert.equal(keys.authenticate({ authorization: 'Bearer anything' }), anonymous)
  assert.ok(mayUse(anonymous, 'any'))
})

test('another list of keys refuses the old ones at once', () => {
  const keys = new ApiKeys(one)
  keys.replace([{ id: 'two', hash: hashOfKey('wr-another-one-of-them') }])
  refusal(keys, { 'x-api-key': key })
  assert.equal(keys.authenticate({ 'x-api-key': 'wr-another-one-of-them' }).keyId, 'two')
})

test('a key carries its limits, and none where none are configured', () => {
  const [plain, limited] = [
    new ApiKeys(one).authenticate({ 'x-api-key': key }),
    new ApiKeys([
      { id: 'b', hash: hashOfKey(key), requestsPerMinute: 6, concurrency: 2, priority: -1, weight: 3 },
    ]).authenticate({ 'x-api-key': key }),
  ]
  assert.deepEqual(plain, { ...anonymous, keyId: 'one' })
  assert.deepEqual(limited, {
    keyId: 'b',
    models: null,
    priority: -1,
    weight: 3,
    limits: { requestsPerMinute: 6, tokensPerMinute: null, concurrency: 2 },
  })
})

test('a key may use the models on its list, by each of their names', () => {
  const caller = new ApiKeys([{ id: 'b', hash: hashOfKey(key), models: ['llama', 'gpt-4'] }]).authenticate({
    'x-api-key': key,
  })
  requireModel(caller, 'llama')
  requireModel(caller, 'alias-of-llama', 'llama')
  assert.throws(
    () => {
      requireModel(caller, 'qwen', 'qwen-3')
    },
    (error: RouterError) => error.code === 'MODEL_NOT_ALLOWED' && error.status === 403 && error.param === 'model',
  )
  requireModel(anonymous, 'anything')
})

test('of any keys, each opens for its own owner and nothing else opens', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.string({ minLength: 1, maxLength: 40 }), { minLength: 2 }), (texts) => {
      const [other = '', ...given] = [...new Set(texts.map((text) => text.trim()).filter((text) => text !== ''))]
      fc.pre(given.length > 0)
      const keys = new ApiKeys(given.map((text, index) => ({ id: `k${index}`, hash: hashOfKey(text) })))
      for (const [index, text] of given.entries())
        assert.equal(keys.authenticate({ 'x-api-key': text }).keyId, `k${index}`)
      refusal(keys, { 'x-api-key': other })
    }),
  )
})
