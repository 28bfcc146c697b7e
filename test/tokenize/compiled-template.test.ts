import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseExactJson } from '../../src/tokenize/exact-json.ts'
import { ChatTemplate } from '../../src/tokenize/template.ts'
import { tokenizerPaths } from './tokenizers.ts'

const clock = (): Date => new Date(2026, 0, 2)
const read = (path: string): string => readFileSync(path, 'utf8')
const inConfig = (path: string): string =>
  (JSON.parse(read(`${path}/tokenizer_config.json`)) as { chat_template: string }).chat_template
const sources = {
  demo: read(`${tokenizerPaths.demo}/chat_template.jinja`),
  qwen3: inConfig(tokenizerPaths.qwen3),
  llama31: read(new URL('../fixtures/vllm/llama31_chat_template.jinja', import.meta.url).pathname),
  deepseekv3: inConfig(tokenizerPaths.deepseekv3),
}

/** What came out, by the compiled form where it takes the template, or the refusal. */
function outcome(render: () => string): string {
  try {
    return render()
  } catch (error) {
    return `refused: ${(error as Error).message}`
  }
}

const text = fc.constantFrom(
  ...['', 'Hi', ' a \n', '\n\nx', '</think>', '<think>\nwhy\n</think>\n\nthen', 'é🙂', '\ufeffz\x1c', '"q" \\ \n'],
  ...['<tool_response>', '<tool_response>r</tool_response>', '<|im_end|>', 'items', '0'],
)
const number = fc.constantFrom(...['1', '-3', '0.5', '1.0', '1e22', '12345678901234567890'])
const scalar = fc.oneof(
  number,
  text.map((value) => JSON.stringify(value)),
  fc.constantFrom('true', 'null', '{}', '[]'),
)
const json = fc
  .dictionary(
    fc.constantFrom('a', 'name', 'items', '0', 'get', '__proto__'),
    fc.oneof(
      scalar,
      scalar.map((v) => `[${v},{"k":${v}}]`),
    ),
  )
  .map(
    (entries) =>
      `{${Object.entries(entries)
        .map(([key, value]) => `${JSON.stringify(key)}:${value}`)
        .join(',')}}`,
  )
const call = fc.record({ name: text, arguments: fc.oneof(json.map(parseExactJson), text) }).map((called) => ({
  id: 'c',
  type: 'function',
  function: called,
}))
const message = fc
  .record({
    role: fc.constantFrom('system', 'user', 'assistant', 'tool', 'developer', 'ipython'),
    content: fc.oneof(
      { weight: 6, arbitrary: text },
      fc.constantFrom(null, [{ type: 'text', text: 'part' }], 7, { k: 'v' }),
    ),
    reasoning_content: fc.oneof({ weight: 3, arbitrary: fc.constant(undefined) }, text),
    tool_calls: fc.oneof({ weight: 3, arbitrary: fc.constant(undefined) }, fc.array(call, { maxLength: 2 })),
  })
  .map((fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)))
const variables = fc.record({
  messages: fc.array(message, { maxLength: 7 }),
  tools: fc.option(fc.array(json.map(parseExactJson), { maxLength: 2 })),
  documents: fc.constant(null),
  add_generation_prompt: fc.boolean(),
  more: fc.constantFrom(
    {},
    { enable_thinking: false },
    { enable_thinking: true, tools_in_user_message: false },
    { builtin_tools: ['code_interpreter', 'x'] },
    { custom_tools: null, date_string: '1 Jan' },
  ),
})

for (const [name, source] of Object.entries(sources)) {
  test(`${name}: the compiled template renders what the interpreter renders`, () => {
    const template = new ChatTemplate(source, { bos_token: '<s>' }, clock)
    assert.ok(template.compiled)
    let pieces = 0
    fc.assert(
      fc.property(variables, ({ more, ...given }) => {
        const values = { ...given, ...more }
        const fresh = new ChatTemplate(source, { bos_token: '<s>' }, clock)
        const rendered = outcome(() => {
          const parts = fresh.render(values)
          pieces += parts.length
          return parts.join('')
        })
        assert.equal(
          rendered,
          outcome(() => fresh.interpret(values)),
        )
      }),
      { numRuns: 250 },
    )
    assert.ok(pieces > 500, `${pieces} pieces: the compiled form was hardly used`)
  })
}

const snippets = [
  "{% for a, b in o.items() %}{{ a + '=' ~ b }}{{ loop.index }}{{ loop.revindex0 }}{% if not loop.last %},{% endif %}{% endfor %}",
  '{% for x in [] %}{{ x }}{% else %}none{% endfor %}',
  '{% for x in l %}{% set y = x %}{% for x in l[::-1] %}{{ x }}{{ y }}{% set y = x %}{{ y }}{% endfor %}{{ y }}{% endfor %}{{ y }}',
  '{% set y = 1 %}{% for x in l %}{% if x == 2 %}{% set y = x %}{% endif %}{{ y }}{% endfor %}{{ y }}',
  '{% for x in l %}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.length - loop.index0 }}{% endfor %}',
  '{% for k in o %}{{ k }}{% endfor %}{{ o }}{{ l }}{{ o | tojson(indent=2) }}{{ o | length }}',
  "{% set ns = namespace(a=1, b='x') %}{% for x in l %}{% set ns.a = ns.a + x %}{% endfor %}{{ ns.a }}{{ ns.c is defined }}",
  '{% set t %}a{{ l[0] }}b{% endset %}{{ t | upper }}{{ t.length }}{{ t[0] }}{{ t[-1] }}{{ t[9] }}',
  '{{ l[1:] }}{{ l[:-1] }}{{ l[::2] }}{{ l[-2:] }}{{ l[5:] }}{{ l[::-1] }}{{ l[2:0:-1] }}{{ l[-9:9] }}',
  "{{ 1 in l }}{{ '1' in l }}{{ 'a' in o }}{{ 'b' not in o }}{{ 'a' in 'abc' }}{{ 'a' in nothing }}{{ none == nothing }}{{ '1' == 1 }}",
  "{{ l and 'yes' or 'no' }}{{ o.zzz or 'z' }}{{ not l }}{{ 'x' if l else 'y' }}{{ 'x' if nothing }}{{ -1 }}{{ 7 // 2 }}{{ 7 % 4 }}{{ 2 * 3 }}",
  "{{ o.get('a') }}{{ o.get('q') }}{{ o.get('q', 'd') }}{{ o.keys() | list | length }}{{ o.values() | first }}{{ l | last }}",
  "{{ 'a,b'.split(',')[-1] }}{{ ' x '.strip() }}{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith('ab') }}{{ 'Ab' | lower | trim }}",
  '{{ nothing }}{{ none }}{{ true }}{{ 1.5 }}{{ 3 > 2 }}{{ 2.5 + 1 }}{{ 4 / 2 }}{{ [1, [2]] }}{{ {"a": 1} }}',
  '{{ nothing.a }}{{ none.a }}{{ l.length }}{{ l.foo }}{{ o.items }}',
  '{{ nothing.a.b }}{{ nothing + 1 }}',
  "{{ raise_exception('no ' + o.a) }}",
  "{{ range(3) }}{{ range(1, 7, 2) | length }}{{ strftime_now('%Y-%m-%d') }}",
  '{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(1) }}',
  '{% for x in l %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}',
  '{% for x in l if x > 1 %}{{ x }}{{ loop.index }}{% endfor %}',
  "{{ l | join('-') }}{{ l | map('string') | join }}",
  '{% for x in l %}{{ loop }}{% endfor %}{% set loop = 1 %}{{ loop }}',
  "{{ o | items | length }}{{ o is mapping }}{{ l is iterable }}{{ o is iterable }}{{ 'a' is string }}{{ 1 is number }}{{ l is sequence }}",
]
for (const [index, source] of snippets.entries()) {
  test(`snippet ${index} renders as the interpreter does`, () => {
    for (const o of [{ a: 'x' }, {}, { items: 1, a: 0.5, b: [null, true] }, new Map<string, unknown>([['0', 2]])]) {
      for (const l of [[1, 2, 3], [], ['1', 'x']]) {
        const template = new ChatTemplate(source, {}, clock)
        const values = { o, l }
        assert.equal(
          outcome(() => template.render(values).join('')),
          outcome(() => template.interpret(values)),
        )
      }
    }
  })
}

test('a template that needs the interpreter every time is not tried for ever, one that refuses is', () => {
  const left = new ChatTemplate('{{ l | unique | length }}', {}, clock)
  for (let time = 0; time < 100; time += 1) assert.equal(left.render({ l: [1, 1] }).join(''), '1')
  assert.equal(left.compiled, false)
  const refuses = new ChatTemplate("{{ raise_exception('no') }}", {}, clock)
  for (let time = 0; time < 100; time += 1) assert.throws(() => refuses.render({}), { code: 'TEMPLATE_REFUSED' })
  assert.equal(refuses.compiled, true)
})
