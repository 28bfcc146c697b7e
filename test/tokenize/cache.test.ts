import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { TokenCache } from '../../src/tokenize/cache.ts'
import { Cuts } from '../../src/tokenize/cuts.ts'

import type { Tokenizer } from '../../src/tokenize/tokenizer.ts'
import { tokenizerNamed } from './tokenizers.ts'

const MiB = 1024 * 1024

function cacheOf(tokenizer: Tokenizer, budgetBytes: number): TokenCache {
  return new TokenCache(budgetBytes, new Cuts(tokenizer.rules, tokenizer.templateSource ?? ''), (text) =>
    tokenizer.encode(text),
  )
}

/** Texts of pieces that meet at special tokens, broken special tokens and characters that combine across them. */
const pieces = fc.constantFrom(
  ...[
    '<|im_start|>',
    '<|im_end|>',
    '<|endoftext|>',
    '<|im_',
    'start|>',
    '<',
    '|>',
    '<｜User｜>',
    '<｜Assistant｜>',
    '<｜end▁of▁sentence｜>',
  ],
  ...[
    '<|eot_id|>',
    '<|start_header_id|>',
    'user',
    '\n',
    '\n\n',
    ' ',
    '  a',
    "don't",
    '123456',
    'e',
    '\u0301',
    'é',
    '你好',
    '👩‍🔬',
    '\ud800',
    '\u00a0',
    'def f(x):',
  ],
)
const texts = fc.array(pieces, { maxLength: 14 }).map((items) => items.join(''))

for (const name of ['demo', 'qwen3', 'llama31', 'deepseekv3'] as const) {
  test(`${name}: a cached text has the tokens of the same text tokenized alone`, async () => {
    const tokenizer = await tokenizerNamed(name)
    const cache = cacheOf(tokenizer, MiB)
    await fc.assert(
      fc.asyncProperty(fc.array(texts, { minLength: 2, maxLength: 5 }), async (parts) => {
        let text = ''
        for (const part of parts) {
          text += part
          const { tokens, cachedTokens } = await cache.encode([text])
          assert.deepEqual([...tokens], [...(await tokenizer.encode(text))])
          assert.ok(cachedTokens <= tokens.length)
        }
      }),
      { numRuns: 60 },
    )
  })
}

test('the next turn of a conversation tokenizes only what was added', async () => {
  const tokenizer = await tokenizerNamed('demo')
  const asked: string[] = []
  const cache = new TokenCache(MiB, new Cuts(tokenizer.rules, tokenizer.templateSource ?? ''), (text) => {
    asked.push(text)
    return tokenizer.encode(text)
  })
  const messages = [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'One' },
  ]
  await cache.encode(tokenizer.renderChat({ messages }).pieces)
  messages.push({ role: 'assistant', content: 'Two' }, { role: 'user', content: 'Three' })
  const second = await cache.encode(tokenizer.renderChat({ messages }).pieces)
  assert.equal(asked[1], 'assistant\nTwo<|im_end|>\n<|im_start|>user\nThree<|im_end|>\n<|im_start|>assistant\n')
  assert.ok(second.cachedTokens > 10)
  const again = await cache.encode(tokenizer.renderChat({ messages }).pieces)
  assert.equal(again.cachedTokens, again.tokens.length)
  assert.equal(asked.length, 2)
})

test('conversations that share a system prompt and nothing else reuse it', async () => {
  const tokenizer = await tokenizerNamed('demo')
  const cache = cacheOf(tokenizer, MiB)
  const chat = (question: string): string =>
    tokenizer.renderChat({
      messages: [
        { role: 'system', content: 'Be brief. '.repeat(50) },
        { role: 'user', content: question },
      ],
    }).text
  for (const question of ['a', 'b', 'c']) await cache.encode([chat(question)])
  const { cachedTokens, tokens } = await cache.encode([chat('d')])
  assert.ok(cachedTokens > tokens.length - 15, `${cachedTokens} of ${tokens.length}`)
})

test('an edited turn in the middle is never taken from the cache', async () => {
  const tokenizer = await tokenizerNamed('demo')
  const cache = cacheOf(tokenizer, MiB)
  const messages = Array.from({ length: 60 }, (_, index) => ({
    role: index % 2 === 0 ? 'user' : 'assistant',
    content: `Turn ${index}`,
  }))
  await cache.encode(tokenizer.renderChat({ messages }).pieces)
  for (const edited of [0, 7, 30, 58, 59]) {
    const changed = messages.with(edited, { role: 'user', content: 'Turn X' })
    const { text } = tokenizer.renderChat({ messages: changed })
    assert.deepEqual([...(await cache.encode([text])).tokens], [...(await tokenizer.encode(text))])
  }
})

test('the cache never holds more than its budget, and drops what was used longest ago', async () => {
  const tokenizer = await tokenizerNamed('demo')
  const cache = cacheOf(tokenizer, 64 * 1024)
  const text = (index: number): string => `<|im_start|>${index} ${'word '.repeat(200)}<|im_end|>`
  for (let index = 0; index < 40; index += 1) {
    await cache.encode([text(index)])
    assert.ok(cache.bytes <= 64 * 1024)
    assert.ok((await cache.encode([text(0)])).cachedTokens > 0)
  }
  // Only the special token at the beginning, which all texts share, is still known.
  assert.equal((await cache.encode([text(1)])).cachedTokens, 1)
})

test('a text larger than the budget is tokenized and not kept', async () => {
  const tokenizer = await tokenizerNamed('demo')
  const cache = cacheOf(tokenizer, 1000)
  await cache.encode(['long '.repeat(1000)])
  assert.equal(cache.bytes, 0)
})

test('a text is not cut where a tokenizer looks beyond an added token', async () => {
  const { rules } = await tokenizerNamed('demo')
  const cuts = (change: object): boolean => new Cuts({ ...rules, ...change }, '<|im_start|>').possible
  const token = {
    id: 1,
    content: '<|im_start|>',
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }
  assert.equal(cuts({}), true)
  for (const flag of ['lstrip', 'rstrip', 'single_word'])
    assert.equal(cuts({ added_tokens: [{ ...token, [flag]: true }] }), false)
  assert.equal(cuts({ added_tokens: [{ ...token, normalized: true }] }), false)
  assert.equal(cuts({ added_tokens: [{ ...token, normalized: true }], normalizer: null }), true)
  assert.equal(cuts({ added_tokens: [token, { ...token, id: 2, content: 'x<|im' }] }), false)
  assert.equal(cuts({ added_tokens: [token, { ...token, id: 2, content: '|>y' }] }), false)
  assert.equal(cuts({ pre_tokenizer: { type: 'Metaspace', prepend_scheme: 'first' } }), false)
})
