import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { Tokenizer as NativeTokenizer } from 'tokenizers'
import { ByteLevelBpe } from '../../src/tokenize/byte-level-bpe.ts'
import type { TokenizerJson } from '../../src/tokenize/model-files.ts'
import { splitPattern, surelySplitAlike } from '../../src/tokenize/split-pattern.ts'
import { tokenizerPaths } from './tokenizers.ts'

const demoFiles = JSON.parse(readFileSync(`${tokenizerPaths.demo}/tokenizer.json`, 'utf8')) as TokenizerJson

/** Characters of every settled range, its edges, and what is next to them. */
const characters = fc.oneof(
  { weight: 4, arbitrary: fc.string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 6 }) },
  {
    weight: 2,
    arbitrary: fc.constantFrom('\n', '\r\n', '\t', ' ', '   ', '\v', '\f', '\u00a0', '\u3000', '\x1c', '\x1f', '\x7f'),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom("'s", "'S", "'ll", "'Re", "n't", '123', '0x1F', '…', '—', '’', '“', '€', '→', '≤', '■'),
  },
  { weight: 2, arbitrary: fc.integer({ min: 0xa0, max: 0x24f }).map((code) => String.fromCharCode(code)) },
  { weight: 2, arbitrary: fc.integer({ min: 0x391, max: 0x451 }).map((code) => String.fromCharCode(code)) },
  { weight: 1, arbitrary: fc.integer({ min: 0x2010, max: 0x25ff }).map((code) => String.fromCharCode(code)) },
  { weight: 2, arbitrary: fc.integer({ min: 0x3001, max: 0x30fc }).map((code) => String.fromCharCode(code)) },
  { weight: 2, arbitrary: fc.integer({ min: 0x4e00, max: 0x9fa5 }).map((code) => String.fromCharCode(code)) },
  { weight: 1, arbitrary: fc.integer({ min: 0xac00, max: 0xd7a3 }).map((code) => String.fromCharCode(code)) },
  { weight: 2, arbitrary: fc.integer({ min: 0x1f300, max: 0x1f64f }).map((code) => String.fromCodePoint(code)) },
  { weight: 2, arbitrary: fc.constantFrom('👩‍🔬', '❤️', '👍🏽', '🚀', '\u200d', '\ufe0f', '☀', '✔️') },
  { weight: 1, arbitrary: fc.integer({ min: 0xff01, max: 0xff5e }).map((code) => String.fromCharCode(code)) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      '<|im_start|>',
      '<|im_end|>',
      '<|eot_id|>',
      '<｜User｜>',
      '<|im_',
      '<think>',
      '<｜end▁of▁sentence｜>',
    ),
  },
)
const texts = fc.array(characters, { maxLength: 30 }).map((items) => items.join(''))

for (const name of Object.keys(tokenizerPaths) as (keyof typeof tokenizerPaths)[]) {
  test(`${name}: our own ids equal the native library's wherever we give any`, async () => {
    const file = readFileSync(`${tokenizerPaths[name]}/tokenizer.json`, 'utf8')
    const native = NativeTokenizer.fromString(file)
    const ours = ByteLevelBpe.from(JSON.parse(file) as TokenizerJson)
    assert.ok(ours)
    let given = 0
    const compare = async (text: string): Promise<void> => {
      const ids = ours.encode(text)
      if (ids === null) return
      given += 1
      assert.deepEqual(
        [...ids],
        (await native.encode(text, null, { addSpecialTokens: false })).getIds(),
        JSON.stringify(text),
      )
    }
    await fc.assert(fc.asyncProperty(texts, compare), { numRuns: 400 })
    for (const source of ['tokenizer.ts', 'cache.ts', 'split-pattern.ts', 'body.ts']) {
      await compare(readFileSync(new URL(`../../src/tokenize/${source}`, import.meta.url), 'utf8'))
    }
    assert.ok(given > 100)
  })
}

test('texts that engines could split differently are left to the native library', () => {
  const files = demoFiles
  const ours = ByteLevelBpe.from(files)
  for (const text of [
    'e\u0301',
    '\u017f',
    '\u212a',
    '\u2003',
    '\ufeff',
    '\ud800',
    '🫠',
    'x\u{1f300}\ud83c',
    '\u0e2a',
    'x'.repeat(1000),
  ]) {
    assert.equal(ours?.encode(text), null, JSON.stringify(text))
  }
  assert.equal(surelySplitAlike('plain, naïve 你好'), true)
})

test('patterns whose meaning differs between the two regular expression languages are refused', () => {
  for (const pattern of [
    '^a',
    'a$',
    '.+',
    '[[:alpha:]]',
    '[a&&b]',
    'a++',
    'a{1,3}+',
    '(?>a)',
    '(?i:a.b)',
    '\\h',
    '\\w',
    '(?s:a)',
    '(a',
  ]) {
    assert.equal(splitPattern(pattern), null, pattern)
  }
  assert.equal(splitPattern("(?i:'s|'ll)|\\p{L}+")?.source, "(?:'[sS]|'[lL][lL])|\\p{L}+")
})

test('tokenizers of another kind are left to the native library', () => {
  const files = demoFiles
  const changed = (change: object): unknown => ByteLevelBpe.from({ ...files, ...change })
  const [token] = files.added_tokens
  assert.ok(changed({}))
  assert.equal(changed({ normalizer: { type: 'NFKC' } }), null)
  assert.equal(changed({ pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true } }), null)
  assert.equal(changed({ model: { ...files.model, dropout: 0.1 } }), null)
  assert.equal(changed({ model: { ...files.model, byte_fallback: true } }), null)
  assert.equal(changed({ model: { ...files.model, merges: [['no', 'such']] } }), null)
  assert.equal(changed({ added_tokens: [{ ...token, lstrip: true }] }), null)
})
