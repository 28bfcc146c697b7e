import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RouterError } from '../../src/errors.ts'
import { renderChat, type ChatPrompt } from '../../src/tokenize/chat.ts'
import { conversationOf, toolsOf } from '../../src/tokenize/conversation.ts'
import { ChatTemplate } from '../../src/tokenize/template.ts'

const plain = template('{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}')
const listed = template(
  '{% for m in messages %}[{{ m.role }}{% for p in m.content %}|{{ p.type }}:{{ p.text }}{% endfor %}]{% endfor %}',
)

function template(source: string): ChatTemplate {
  return new ChatTemplate(source, { bos_token: '<s>' }, () => new Date(2026, 0, 5, 7, 8, 9))
}

function render(prompt: Partial<ChatPrompt> & { messages: unknown }, by = plain): string {
  return renderChat(by, prompt).text
}

function refused(prompt: ChatPrompt, by = plain): { code: string; param: string | null; message: string } {
  try {
    renderChat(by, prompt)
  } catch (error) {
    assert.ok(error instanceof RouterError)
    assert.equal(error.status, 400)
    return { code: error.code, param: error.param, message: error.message }
  }
  return assert.fail('the chat was accepted')
}

test('a template that loops over content gets parts, any other gets text', () => {
  assert.equal(plain.contentFormat, 'text')
  assert.equal(listed.contentFormat, 'list')
  const viaAssignment =
    "{% set chat = messages[1:] %}{% for m in chat | list %}{% for p in m['content'] if p.type == 'text' %}x{% endfor %}{% endfor %}"
  assert.equal(template(viaAssignment).contentFormat, 'list')
  const viaMacro =
    '{% macro show(content) %}{% for p in content %}x{% endfor %}{% endmacro %}{% for m in messages %}{{ show(m.content) }}{% endfor %}'
  assert.equal(template(viaMacro).contentFormat, 'list')
  assert.equal(
    template('{% for t in tools %}{% for m in messages %}{{ m.content }}{% endfor %}{% endfor %}').contentFormat,
    'text',
  )
})

test('text parts are joined with a newline, or passed on as a list', () => {
  const messages = [
    {
      role: 'user',
      content: [{ type: 'text', text: 'a' }, 'b', { type: 'input_text', text: 'c' }, { type: 'text', text: null }],
    },
  ]
  assert.equal(render({ messages }), '[user|a\nb\nc]')
  assert.equal(render({ messages }, listed), '[user|text:a|text:b|text:c]')
  assert.equal(render({ messages: [{ role: 'user', content: 'a' }] }, listed), '[user|text:a]')
})

test('null content is empty, and text parts of a tool are text in every format', () => {
  assert.equal(render({ messages: [{ role: 'assistant', content: null }] }), '[assistant|]')
  assert.equal(render({ messages: [{ role: 'assistant' }] }, listed), '[assistant]')
  const tool = [
    {
      role: 'tool',
      tool_call_id: '1',
      content: [
        { type: 'text', text: 'a' },
        { type: 'text', text: 'b' },
      ],
    },
  ]
  assert.deepEqual(conversationOf(tool, 'list', true), [{ role: 'tool', content: 'a\nb', tool_call_id: '1' }])
})

test('the billing line of a system message is dropped, and only there', () => {
  const billing = 'x-anthropic-billing-header: cc_version=2.1.177.01c; cch=36ee5;'
  const message = (role: string, content: unknown): { messages: unknown } => ({ messages: [{ role, content }] })
  assert.equal(render(message('system', `${billing}\nYou help.`)), '[system|You help.]')
  assert.equal(
    render(
      message('system', [
        { type: 'text', text: billing },
        { type: 'text', text: 'You help.' },
      ]),
    ),
    '[system|You help.]',
  )
  assert.equal(render(message('system', billing)), '[system|]')
  assert.equal(render(message('user', billing)), `[user|${billing}]`)
  assert.equal(render(message('system', `Hi\n${billing}`)), `[system|Hi\n${billing}]`)
})

test('reasoning reaches the template under both names, whichever the request used', () => {
  for (const key of ['reasoning', 'reasoning_content']) {
    const [message] = conversationOf([{ role: 'assistant', content: 'a', [key]: 'r', unknown: 1 }], 'text', true)
    assert.deepEqual(message, { role: 'assistant', content: 'a', reasoning: 'r', reasoning_content: 'r' })
  }
})

test('tool call arguments become objects, and empty ones where they are none', () => {
  const given = ['{"a": {"b": [1]}}', '', null, '{broken', '[1]', '"text"', { c: 1 }]
  const expected = [{ a: { b: [1] } }, {}, {}, {}, {}, {}, { c: 1 }]
  const calls = given.map((value) => ({
    id: 'i',
    type: 'function',
    index: 0,
    function: { name: 'f', arguments: value },
  }))
  const [message] = conversationOf([{ role: 'assistant', content: null, tool_calls: calls }], 'text', true)
  const called = message?.['tool_calls'] as { function: { arguments: unknown } }[]
  assert.deepEqual(
    called.map((call) => call.function.arguments),
    expected,
  )
  assert.deepEqual(Object.keys(called[0] ?? {}), ['id', 'function', 'type'])
  const [empty] = conversationOf([{ role: 'assistant', content: 'a', tool_calls: [] }], 'text', true)
  assert.equal('tool_calls' in (empty ?? {}), false)
})

test('developer messages become system, merged with all others at the front, unless the template knows the role', () => {
  const messages = [
    { role: 'user', content: 'u' },
    { role: 'developer', content: 'd', tools: [] },
    { role: 'system', content: 's' },
  ]
  assert.equal(render({ messages }), '[system|d\n\ns][user|u]')
  const knows = template(
    "{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% if m.role == 'developer' %}!{% endif %}{% endfor %}",
  )
  assert.equal(render({ messages }, knows), '[user|u][developer|d]![system|s]')
})

test('several system messages stay where they are when there is no developer', () => {
  const messages = [
    { role: 'system', content: 'a' },
    { role: 'user', content: 'u' },
    { role: 'system', content: 'b' },
  ]
  assert.equal(render({ messages }), '[system|a][user|u][system|b]')
})

test('tools take a fixed form: unknown keys go, absent ones are null, strict stays', () => {
  const tools = [
    { extra: 1, function: { strict: true, name: 'f', more: 2 } },
    { type: 'function', function: { name: 'g', description: 'd', parameters: { z: 1, a: 2 } }, defer_loading: true },
  ]
  assert.equal(
    JSON.stringify(toolsOf(tools)),
    '[{"type":"function","function":{"name":"f","description":null,"parameters":null,"strict":true}},' +
      '{"type":"function","function":{"name":"g","description":"d","parameters":{"z":1,"a":2},"defer_loading":true},"defer_loading":true}]',
  )
  assert.equal(toolsOf(null), null)
})

test('numbers in tools print as Python prints them', () => {
  const source = template('{{ tools[0] | tojson }}')
  const tools = [{ type: 'function', function: { name: 'f', parameters: { default: 0.5, big: 3 } } }]
  assert.match(render({ messages: [{ role: 'user', content: '' }], tools }, source), /"default": 0.5, "big": 3/)
})

test('keyword arguments reach the template by the names that it uses; two names are refused', () => {
  const source = template('{{ style }}{{ add_generation_prompt }}{{ reasoning_effort }}')
  const messages = [{ role: 'user', content: 'u' }]
  const chat_template_kwargs = { style: 'x', other: 'y', add_generation_prompt: false }
  assert.equal(render({ messages, chat_template_kwargs, reasoning_effort: 'low' }, source), 'xtruelow')
  for (const name of ['chat_template', 'tokenize']) {
    assert.equal(refused({ messages, chat_template_kwargs: { [name]: 1 } }).param, `chat_template_kwargs.${name}`)
  }
})

test('a refusal of the template carries its reason', () => {
  const source = template(
    "{% if messages[0].role != 'user' %}{{ raise_exception('Start with a user, please') }}{% endif %}ok",
  )
  assert.equal(render({ messages: [{ role: 'user', content: '' }] }, source), 'ok')
  const error = refused({ messages: [{ role: 'tool', content: '' }] }, source)
  assert.deepEqual(error, { code: 'TEMPLATE_REFUSED', param: null, message: 'Start with a user, please' })
})

test('continue_final_message cuts after the last text and needs no generation prompt', () => {
  const source = template(
    '{% for m in messages %}<{{ m.content | trim }}>{% endfor %}{% if add_generation_prompt %}A:{% endif %}',
  )
  const messages = [
    { role: 'user', content: 'u' },
    { role: 'assistant', content: ' so far  ' },
  ]
  assert.equal(render({ messages, add_generation_prompt: false, continue_final_message: true }, source), '<u><so far')
  assert.equal(refused({ messages, continue_final_message: true }).param, 'continue_final_message')
  const drops = template('{{ messages[0].content }}')
  assert.equal(
    refused({ messages, add_generation_prompt: false, continue_final_message: true }, drops).code,
    'TEMPLATE_REFUSED',
  )
})

test('a chat with media is known up to the first of it', () => {
  const image = { type: 'image_url', image_url: { url: 'data:,' } }
  const messages = [
    { role: 'user', content: 'a' },
    { role: 'user', content: [{ type: 'text', text: 'b' }, image] },
  ]
  const { text, unknownTokens, addSpecialTokens } = renderChat(plain, { messages })
  assert.deepEqual(
    { text, unknownTokens, addSpecialTokens },
    // The image counts as 1,000 tokens, the text after it as one for four characters.
    { text: '[user|a][user|', unknownTokens: 1001, addSpecialTokens: false },
  )
  assert.equal(renderChat(listed, { messages }).text, '[user|text:a][user|text:b|text:')
})

test('what is malformed is refused with the field at fault', () => {
  const message = { role: 'user', content: 'u' }
  const cases: [ChatPrompt, string][] = [
    [{ messages: 'x' }, 'messages'],
    [{ messages: [] }, 'messages'],
    [{ messages: [1] }, 'messages[0]'],
    [{ messages: [message, { content: 'x' }] }, 'messages[1].role'],
    [{ messages: [{ role: 'user', content: 1 }] }, 'messages[0].content'],
    [{ messages: [{ role: 'user', content: [{ type: 'hologram' }] }] }, 'messages[0].content[0].type'],
    [{ messages: [{ role: 'assistant', tool_calls: [{}] }] }, 'messages[0].tool_calls[0].function'],
    [{ messages: [message], tools: [{ function: {} }] }, 'tools[0].function.name'],
    [{ messages: [message], add_generation_prompt: 'yes' }, 'add_generation_prompt'],
    [{ messages: [message], chat_template: '{{ 1 }}' }, 'chat_template'],
    [{ messages: [message], chat_template_kwargs: 1 }, 'chat_template_kwargs'],
  ]
  for (const [prompt, param] of cases) {
    const error = refused(prompt)
    assert.deepEqual([error.code, error.param], ['BODY_INVALID', param])
  }
})

test('the date comes from the given clock, in the C locale', () => {
  assert.equal(
    render({ messages: [{ role: 'user' }] }, template("{{ strftime_now('%d %b %Y %H:%M:%S %A %-d %j') }}")),
    '05 Jan 2026 07:08:09 Monday 5 %j',
  )
})

test('special tokens are variables, and a request cannot declare globals anew', () => {
  assert.equal(
    render(
      { messages: [{ role: 'user' }], chat_template_kwargs: { true: false } },
      template('{{ bos_token }}{{ true }}'),
    ),
    '<s>true',
  )
})
