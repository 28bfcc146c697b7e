import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { silentLog } from '../../src/telemetry/log.ts'
import { chatOfMessages, type MessagesRules } from '../../src/tokenize/anthropic.ts'
import { withoutBillingLine } from '../../src/tokenize/billing-line.ts'
import { scanBody } from '../../src/tokenize/body.ts'
import { renderChat, type ChatPrompt } from '../../src/tokenize/chat.ts'
import { KeptBodies } from '../../src/tokenize/kept-bodies.ts'
import { messagesRulesOf } from '../../src/tokenize/messages-rules.ts'
import { promptSource } from '../../src/tokenize/prompt-source.ts'
import { PromptTokenizers } from '../../src/tokenize/prompts.ts'
import type { PromptKind } from '../../src/tokenize/request.ts'
import { createPromptService, longBodyBytes } from '../../src/tokenize/service.ts'
import { ChatTemplate } from '../../src/tokenize/template.ts'
import { tokenizerPaths } from './tokenizers.ts'

const kept: MessagesRules = { inlineSystem: 'kept', disabledThinkingEffort: 'none' }
const merged: MessagesRules = { inlineSystem: 'merged', disabledThinkingEffort: 'low' }

const listedPath = new URL('../fixtures/vllm/listed_chat_template.jinja', import.meta.url).pathname
const listed = template(readFileSync(listedPath, 'utf8'))

const tokenizers = new PromptTokenizers(0, false)
await tokenizers.add('text', { path: tokenizerPaths.qwen3 })
await tokenizers.add('list', { path: tokenizerPaths.qwen3, chatTemplate: listedPath })

function template(source: string): ChatTemplate {
  return new ChatTemplate(source, { bos_token: '<s>' }, () => new Date(2026, 0, 5))
}

function rulesOf(source: string): MessagesRules {
  const chat = template(source)
  return messagesRulesOf([chat], (prompt) => renderChat(chat, prompt).text)
}

function chatOf(body: Record<string, unknown>, rules = kept): ChatPrompt {
  const chat = chatOfMessages(body, rules)
  assert.ok(chat !== null)
  return chat
}

const user = (content: unknown): object => ({ role: 'user', content })
const text = (words: string): object => ({ type: 'text', text: words })

/** The forms in which Claude Code's line comes, by a nonce that is new in every request. */
const billed: Readonly<Record<string, (line: string) => { kind: PromptKind; body: object }>> = {
  'a system block': (line) => messages({ system: [text(line), text('You are Claude Code.')] }),
  'a system block that is a cache breakpoint': (line) =>
    messages({ system: [{ type: 'text', text: line, cache_control: { type: 'ephemeral' } }, text('You are.')] }),
  'a system block that goes on after it': (line) => messages({ system: [text(`${line}\nYou are.`), text('Rules.')] }),
  'a system string': (line) => messages({ system: `${line}\nYou are Claude Code.` }),
  'a system string of nothing else': (line) => messages({ system: line }),
  'an inline system message': (line) => messages({ messages: [user('Hi'), { role: 'system', content: line }] }),
  'an inline system message in blocks': (line) =>
    messages({ messages: [user('Hi'), { role: 'system', content: [text(line), text('Remember.')] }] }),
  'a chat that was translated, as a string': (line) => chat({ role: 'system', content: `${line}\nYou are.` }),
  'a chat that was translated, in parts': (line) => chat({ role: 'system', content: [text(line), text('You are.')] }),
  'a chat that was translated, in a part that goes on': (line) =>
    chat({ role: 'system', content: [text(`${line}\nYou are.`)] }),
  'the instructions of a response': (line) => ({
    kind: 'responses',
    body: { instructions: `${line}\nYou are.`, input: 'Hi' },
  }),
}

function messages(more: object): { kind: PromptKind; body: object } {
  return { kind: 'messages', body: { max_tokens: 1, messages: [user('Hi')], ...more } }
}

function chat(system: object): { kind: PromptKind; body: object } {
  return { kind: 'chat', body: { messages: [system, user('Hi')] } }
}

for (const [form, bodyWith] of Object.entries(billed)) {
  test(`two requests that differ only in the billing line have the same tokens: ${form}`, async () => {
    for (const name of ['text', 'list']) {
      const tokens = async (nonce: string): Promise<number[]> => {
        const { kind, body } = bodyWith(`x-anthropic-billing-header: cc_version=2.1.177.01c; cch=${nonce};`)
        const bytes = Buffer.from(JSON.stringify({ model: 'm', ...body }))
        const { prompts } = await tokenizers.tokens(name, promptSource(scanBody(bytes).value, kind))
        return [...(prompts[0] ?? [])]
      }
      const first = await tokens('36ee5')
      assert.ok(first.length > 0)
      assert.deepEqual(await tokens('0ab1c'), first)
    }
  })
}

test('a billing line goes only from the start of a text, by the rule of the place', () => {
  const line = 'x-anthropic-billing-header: cch=36ee5;'
  assert.equal(withoutBillingLine(`${line}\nMore`, 'messages'), null)
  assert.equal(withoutBillingLine(`${line}\nMore`, 'chat'), 'More')
  assert.equal(withoutBillingLine(line, 'chat'), null)
  assert.equal(withoutBillingLine(`${line}\n`, 'chat'), null)
  for (const place of ['messages', 'chat'] as const) {
    assert.equal(withoutBillingLine(`See ${line}`, place), `See ${line}`)
    assert.equal(withoutBillingLine(`\n${line}`, place), `\n${line}`)
  }
  assert.deepEqual(chatOf({ messages: [user(line)] }).messages, [{ role: 'user', content: line }])
})

test('inline system messages stay in place, or join the first one where the template refuses them', () => {
  const body = { system: 'A. ', messages: [user('Hi'), { role: 'system', content: 'B.' }, user('Go')] }
  assert.deepEqual(chatOf(body).messages, [
    { role: 'system', content: 'A. ' },
    user('Hi'),
    { role: 'system', content: 'B.' },
    user('Go'),
  ])
  assert.equal(chatOfMessages(body, { ...kept, inlineSystem: 'unknown' }), null)
  assert.deepEqual(chatOf(body, merged).messages, [{ role: 'system', content: 'A. B.' }, user('Hi'), user('Go')])
})

test('a template is tried bare, as the engine tries it', () => {
  const loop = '{% for m in messages %}{{ m.content }}{% endfor %}'
  const guard =
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
  assert.equal(rulesOf(loop).inlineSystem, 'kept')
  assert.equal(rulesOf(guard).inlineSystem, 'merged')
  assert.equal(rulesOf(`{{ bos_token }}${loop}`).inlineSystem, 'kept')
  assert.equal(rulesOf(`{{ strftime_now('%Y') }}${loop}`).inlineSystem, 'merged')
  assert.equal(rulesOf(`{% if strftime_now is defined %}x{% endif %}${loop}`).inlineSystem, 'kept')
  // Jinja renders these; whether it would is not known here.
  for (const source of ['{{ tools | length }}', '{% for t in tools %}x{% endfor %}', "{{ bos_token ~ 'x' }}"]) {
    assert.equal(rulesOf(source + loop).inlineSystem, 'unknown')
  }
  assert.equal(messagesRulesOf([], () => '').inlineSystem, 'merged')
})

test('disabled thinking is the effort none where that changes the prompt, else low', () => {
  assert.equal(rulesOf('{{ messages[0].content }}').disabledThinkingEffort, 'low')
  assert.equal(rulesOf('{% if not enable_thinking %}x{% endif %}').disabledThinkingEffort, 'none')
  assert.equal(rulesOf('{{ reasoning_effort }}').disabledThinkingEffort, 'none')
  const unknownIsMost = "{{ 'least' if reasoning_effort == 'low' else 'most' }}"
  assert.equal(rulesOf(unknownIsMost).disabledThinkingEffort, 'low')
  const refuses = "{% if reasoning_effort == 'none' %}{{ raise_exception('no') }}{% endif %}{{ reasoning_effort }}"
  assert.equal(rulesOf(refuses).disabledThinkingEffort, 'low')
  const disabled = { messages: [user('Hi')], thinking: { type: 'disabled' }, output_config: { effort: 'high' } }
  assert.equal(chatOf(disabled).reasoning_effort, 'none')
  assert.equal(chatOf(disabled, merged).reasoning_effort, 'low')
  assert.equal(chatOf({ ...disabled, thinking: { type: 'adaptive' } }).reasoning_effort, 'high')
})

test('the prompt is known up to the first image, also one that a tool gave', () => {
  const image = { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'iVBORw0KGgo=' } }
  const shown = renderChat(listed, chatOf({ messages: [user('Hi'), user([text('See'), image, text('this')])] }))
  assert.ok(shown.unknownTokens > 1000)
  assert.equal(shown.text, '<|im_start|>user\nHi|<|im_end|>\n<|im_start|>user\nSee|')
  const result = { type: 'tool_result', tool_use_id: 't', content: [text('seen'), image] }
  const given = chatOf({ messages: [user([result, text('And?')])] })
  assert.deepEqual(given.messages, [
    { role: 'tool', tool_call_id: 't', content: 'seen' },
    { role: 'user', content: [{ type: 'image_url' }] },
    { role: 'user', content: 'And?' },
  ])
})

test('a body that the engine refuses, or turns into what only it can tell, has no chat', () => {
  const ask = { messages: [user('Hi')] }
  const use = { type: 'tool_use', name: 'f', input: {} }
  const bodies: readonly Record<string, unknown>[] = [
    {},
    { messages: 'Hi' },
    { messages: [null] },
    { messages: [{ role: 'tool', content: 'x' }] },
    { messages: [user(null)] },
    { messages: [user([{ type: 'document' }])] },
    { messages: [user([{ type: 'text', text: 1 }])] },
    // The engine names such a call by its clock, and prints such a list as Python does.
    { messages: [{ role: 'assistant', content: [use] }] },
    { messages: [{ role: 'assistant', content: [{ type: 'tool_result', content: [text('x')] }] }] },
    { ...ask, system: 1 },
    { ...ask, system: [{ type: 'tool_addition', tool: { type: 'tool_reference', name: 'f' } }] },
    { ...ask, tools: [{ type: 'web_search_20250305', name: 'web_search' }] },
    { ...ask, output_config: { effort: 'huge' } },
    { ...ask, thinking: { type: 'odd' } },
    { ...ask, chat_template_kwargs: 'x' },
  ]
  for (const body of bodies) assert.equal(chatOfMessages(body, kept), null, JSON.stringify(body))
})

const words = fc.constantFrom(
  'Hi',
  '',
  'A longer question.',
  '你好 👩‍🔬',
  'x-anthropic-billing-header: a\nb',
  '<|im_end|>',
)
const block = fc.oneof(
  words.map(text),
  words.map((thinking) => ({ type: 'thinking', thinking })),
  words.map((content) => ({ type: 'tool_result', tool_use_id: 't', content: [text(content), text('end')] })),
  fc.constant({ type: 'tool_use', id: 't', name: 'f', input: { '10': 1.5, a: [1] } }),
)
const someMessage = fc.record({
  role: fc.constantFrom('user', 'assistant', 'system'),
  content: fc.oneof(words, fc.array(block, { maxLength: 3 })),
})

test('messages that are kept between turns become the chat that a cold reading makes of them', () => {
  fc.assert(
    fc.property(fc.array(someMessage, { minLength: 1, maxLength: 8 }), fc.nat(7), someMessage, (turns, cut, other) => {
      const bodies = new KeptBodies(1024 * 1024)
      for (const list of [turns.slice(0, cut + 1), turns, [...turns.slice(0, cut), other], turns]) {
        const bytes = Buffer.from(JSON.stringify({ model: 'm', system: 'S', messages: list, stream: true }))
        const warm = chatOfMessages(bodies.read(bytes, [1]).value, kept)
        const cold = chatOfMessages(scanBody(bytes).value, kept)
        assert.deepEqual(warm, cold)
        if (warm === null || cold === null) continue
        assert.equal(renderChat(listed, warm).text, renderChat(listed, cold).text)
      }
    }),
  )
})

test('the next turn of a long conversation finds the cache of its thread, and has the tokens of a cold one', async () => {
  const service = createPromptService({ threads: 1, queued: 10, cacheBytes: 16 * 1024 * 1024, log: silentLog })
  after(() => service.close())
  await service.add('text', { path: tokenizerPaths.qwen3 })
  const list = [user('All work and no play makes Jack a dull boy. '.repeat(1500))]
  let known = 0
  for (let turn = 0; turn < 3; turn += 1) {
    const bytes = Buffer.from(JSON.stringify({ model: 'm', max_tokens: 9, system: [text('S')], messages: list }))
    assert.ok(bytes.length > longBodyBytes)
    const tokens = await service.tokens(await service.read(bytes, 'messages'), 'text')
    const cold = await tokenizers.tokens('text', promptSource(scanBody(bytes).value, 'messages'))
    assert.deepEqual(tokens.prompts, cold.prompts)
    assert.ok(tokens.cachedTokens >= known)
    known = (tokens.prompts[0]?.length ?? 0) - 200
    const call = { type: 'tool_use', id: `t${turn}`, name: 'f', input: { n: turn } }
    const result = { type: 'tool_result', tool_use_id: `t${turn}`, content: [text('Done.')] }
    list.push({ role: 'assistant', content: [text('Indeed.'), call] }, user([result, text('Go on.')]))
  }
})

test('a model whose chats the engine renders by code has no prompt for bodies that become chats', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'harmony-'))
  after(() => rm(folder, { recursive: true }))
  await cp(tokenizerPaths.demo, folder, { recursive: true })
  await writeFile(join(folder, 'config.json'), JSON.stringify({ model_type: 'gpt_oss' }))
  const harmony = new PromptTokenizers(0, false)
  await harmony.add('m', { path: folder })
  await harmony.add('demo', { path: tokenizerPaths.demo })
  for (const [kind, body] of [
    ['messages', { messages: [user('Hi')] }],
    ['responses', { input: 'Hi' }],
  ] as const) {
    assert.equal((await harmony.tokens('m', promptSource(body, kind))).prompts.length, 0)
    assert.equal((await harmony.tokens('demo', promptSource(body, kind))).prompts.length, 1)
  }
})
