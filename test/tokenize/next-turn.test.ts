import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { silentLog } from '../../src/telemetry/log.ts'
import { TokenCache } from '../../src/tokenize/cache.ts'
import { Cuts } from '../../src/tokenize/cuts.ts'
import { KeptBodies } from '../../src/tokenize/kept-bodies.ts'
import { PieceText } from '../../src/tokenize/piece-text.ts'
import { createPromptService, longBodyBytes } from '../../src/tokenize/service.ts'
import { tokenizerNamed, tokenizerPaths } from './tokenizers.ts'

const service = createPromptService({ threads: 1, queued: 10, cacheBytes: 16 * 1024 * 1024, log: silentLog })
after(() => service.close())

interface Message {
  role: string
  content: string
  tool_calls?: object[]
}

const content = fc.constantFrom(
  ...[
    '',
    'Hi',
    'A question that is longer than a short one, by far.',
    '\n\nText',
    ' spaced ',
    '<|im_end|>',
    '</think>\n\nx',
  ],
  ...[
    '你好 👩‍🔬',
    'def f(x):\n    return x\n',
    '<|im_start|>assistant\n',
    'e\u0301 combining',
    'Yes, yes, yes, yes, yes, yes, yes, yes.',
  ],
)
const message = fc
  .record({ role: fc.constantFrom('user', 'assistant', 'tool', 'system'), content })
  .map((given): Message => given)
const called = content.map((text): Message => ({
  role: 'assistant',
  content: text,
  tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: JSON.stringify({ text, n: 1.5 }) } }],
}))
const someMessage = fc.oneof({ weight: 5, arbitrary: message }, called)
const edit = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant('add' as const), messages: fc.array(someMessage, { maxLength: 3 }) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('change' as const), at: fc.nat(12), message: someMessage }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('remove' as const), at: fc.nat(12) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('cut' as const), at: fc.nat(12) }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'back' as const }) },
)

function edited(turns: Message[][], step: typeof edit extends fc.Arbitrary<infer Step> ? Step : never): Message[] {
  const messages = turns.at(-1) ?? []
  switch (step.kind) {
    case 'add':
      return [...messages, ...step.messages]
    case 'change':
      return step.at < messages.length ? messages.with(step.at, step.message) : messages
    case 'remove':
      return messages.toSpliced(step.at, 1)
    case 'cut':
      return messages.slice(0, step.at)
    case 'back':
      return turns.at(-2) ?? messages
  }
}

for (const name of ['demo', 'qwen3', 'llama31', 'deepseekv3'] as const) {
  test(`${name}: each turn has the tokens of a cold tokenizer, whatever was edited since the last one`, async () => {
    const tokenizer = await tokenizerNamed(name)
    const bodies = new KeptBodies(1024 * 1024)
    for (const budget of [1024 * 1024, 6000]) {
      const cuts = new Cuts(tokenizer.rules, tokenizer.templateSource ?? '')
      const cache = new TokenCache(budget, cuts, (text) => tokenizer.encode(text), true)
      await fc.assert(
        fc.asyncProperty(
          fc.array(someMessage, { minLength: 1, maxLength: 6 }),
          fc.array(edit, { maxLength: 6 }),
          async (first, edits) => {
            const turns = [first]
            for (const step of edits) turns.push(edited(turns, step))
            const given: { tokens: Uint32Array; copy: number[] }[] = []
            for (const messages of turns) {
              if (messages.length === 0) continue
              const bytes = Buffer.from(JSON.stringify({ model: 'm', messages, stream: true }))
              const { value } = bodies.read(bytes, [1])
              let pieces: readonly string[]
              try {
                pieces = tokenizer.renderChat({ messages: value['messages'] }).pieces
              } catch (error) {
                assert.throws(() => tokenizer.renderChat({ messages }), error as Error)
                continue
              }
              const { tokens, cachedTokens } = await cache.encode(pieces)
              const cold = await tokenizer.encode(tokenizer.renderChat({ messages }).text)
              assert.deepEqual([...tokens], [...cold])
              assert.ok(cachedTokens <= tokens.length)
              given.push({ tokens, copy: [...tokens] })
            }
            for (const { tokens, copy } of given)
              assert.deepEqual([...tokens], copy, 'tokens that were given out changed')
          },
        ),
        { numRuns: 60 },
      )
      assert.ok(cache.bytes <= budget)
    }
  })
}

test('a text in pieces is the joined text, wherever it is looked at', () => {
  const pieces = fc.array(fc.constantFrom('', 'a', 'bc', 'def', '🙂'), { maxLength: 8 })
  fc.assert(
    fc.property(pieces, pieces, (some, others) => {
      const text = new PieceText(some)
      const other = new PieceText(others)
      const joined = some.join('')
      for (let at = 0; at <= joined.length; at += 1) assert.equal(text.from(at), joined.slice(at))
      for (let at = 0; at < joined.length; at += 1) assert.equal(text.charCodeAt(at), joined.charCodeAt(at))
      assert.equal(text.equals(other), joined === others.join(''))
      const shared = text.sharedPieces(other)
      assert.equal(text.endOf(shared), other.endOf(shared))
      assert.deepEqual(some.slice(0, shared), others.slice(0, shared))
    }),
  )
})

test('texts that were asked for at once do not disturb each other', async () => {
  const tokenizer = await tokenizerNamed('demo')
  const cuts = new Cuts(tokenizer.rules, tokenizer.templateSource ?? '')
  const slowly = async (text: string): Promise<Uint32Array> => {
    await new Promise((resolve) => setImmediate(resolve))
    return tokenizer.encode(text)
  }
  const cache = new TokenCache(1024 * 1024, cuts, slowly)
  const messages: Message[] = [{ role: 'user', content: 'The first of a good many questions, and a long one.' }]
  for (let turn = 0; turn < 5; turn += 1) {
    const asked = ['a', 'b', 'c'].map((answer) => {
      const { pieces, text } = tokenizer.renderChat({
        messages: [
          ...messages,
          { role: 'assistant', content: answer.repeat(40 + turn) },
          { role: 'user', content: answer },
        ],
      })
      return { text, answer: cache.encode(pieces) }
    })
    for (const { text, answer } of asked)
      assert.deepEqual([...(await answer).tokens], [...(await tokenizer.encode(text))])
    messages.push({ role: 'assistant', content: 'b'.repeat(40 + turn) }, { role: 'user', content: 'b' })
  }
})

test('on a thread, too, turns and edits of a long conversation have the tokens of a cold tokenizer', async () => {
  await service.add('demo', { path: tokenizerPaths.demo })
  await service.add('twin', { path: tokenizerPaths.demo })
  const tokenizer = await tokenizerNamed('demo')
  const messages: Message[] = [{ role: 'system', content: 'Be brief. '.repeat(longBodyBytes / 8) }]
  const check = async (pool: string, asked: readonly Message[]): Promise<number> => {
    const body = Buffer.from(JSON.stringify({ model: pool, messages: asked }))
    const { prompts, cachedTokens } = await service.tokens(await service.read(body, 'chat'), pool)
    assert.deepEqual(
      prompts.map((prompt) => [...prompt]),
      [[...(await tokenizer.chat({ messages: asked }))]],
    )
    return cachedTokens
  }
  for (let turn = 0; turn < 6; turn += 1) {
    messages.push(
      { role: 'user', content: `Question ${turn}: ${'why '.repeat(20)}?` },
      { role: 'assistant', content: '\nSo.' },
    )
    const cached = await check(turn === 3 ? 'twin' : 'demo', messages)
    if (turn > 0 && turn !== 3) assert.ok(cached > 5000, `turn ${turn} had ${cached} cached tokens`)
    if (turn > 1) await check('demo', messages.with(2, { role: 'assistant', content: `Edited ${turn}` }))
  }
})

test('a turn whose prompt is refused says so, although its tokens were to be made early', async () => {
  await service.add('refusing', { path: tokenizerPaths.demo })
  const messages: unknown[] = [{ role: 'user', content: 'x'.repeat(longBodyBytes) }]
  const body = (): Buffer => Buffer.from(JSON.stringify({ model: 'refusing', messages }))
  await service.tokens(await service.read(body(), 'chat'), 'refusing')
  messages.push({ role: 'user', content: 7 })
  const read = await service.read(body(), 'chat')
  await assert.rejects(service.tokens(read, 'refusing'), { code: 'BODY_INVALID', param: 'messages[1].content' })
})
