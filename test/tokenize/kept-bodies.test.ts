import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { RouterError } from '../../src/errors.ts'
import { scanBody, scanNextBody, type ScannedBody } from '../../src/tokenize/body.ts'
import { KeptBodies } from '../../src/tokenize/kept-bodies.ts'

type Outcome = Pick<ScannedBody, 'value' | 'messageEnds'> & { ranges: unknown; order: string[] }

function outcome(scan: () => ScannedBody): Outcome | string {
  try {
    const { value, ranges, messageEnds } = scan()
    return { value, ranges: [...ranges], messageEnds, order: Object.keys(value) }
  } catch (error) {
    assert.ok(error instanceof RouterError, String(error))
    return `${error.code} ${error.message}`
  }
}

const text = fc.oneof(
  fc.constantFrom('', 'Hi', 'a"b\\', '\\\\"', '}],"x":[{', 'é🙂', '\ud800', '{"a":[1.0]}'),
  fc.string({ unit: 'binary', maxLength: 12 }),
)
const number = fc.constantFrom('1', '1.0', '12345678901234567890', '-0.5e3')
const message = fc
  .tuple(fc.constantFrom('user', 'assistant'), text, fc.option(number), fc.option(text))
  .map(([role, content, odd, key]) => {
    const more = `${odd === null ? '' : `,"x":${odd}`}${key === null ? '' : `,${JSON.stringify(key)}:{"7":[]}`}`
    return `{"role":"${role}","content":${JSON.stringify(content)}${more}}`
  })
const field = fc.constantFrom(
  ...[
    '"model":"m"',
    '"stream":true',
    '"tools":[{"a":1.0,"2":{}}]',
    '"n":2',
    '"x":1',
    '"x":{"y":[]}',
    '"__proto__":{"a":1}',
  ],
)
const space = fc.constantFrom('', ' ', '\n\t')
const body = fc
  .record({
    before: fc.array(field, { maxLength: 3 }),
    messages: fc.array(message, { maxLength: 6 }),
    after: fc.array(field, { maxLength: 3 }),
    space,
  })
  .map(({ before, messages, after, space }) => ({ before, messages, after, space }))

interface Parts {
  before: string[]
  messages: string[]
  after: string[]
  space: string
}

function join({ before, messages, after, space }: Parts): string {
  const list = `"messages":[${space}${messages.join(`${space},${space}`)}${space}]`
  return `{${space}${[...before, list, ...after].join(`,${space}`)}${space}}`
}

test('the next body is read as if it were the first, whatever was added, edited or broken', () => {
  const change = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({ kind: fc.constant('add' as const), messages: fc.array(message, { maxLength: 3 }) }),
    },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('edit' as const), at: fc.nat(6), message }) },
    {
      weight: 3,
      arbitrary: fc.record({ kind: fc.constant('tail' as const), after: fc.array(field, { maxLength: 3 }) }),
    },
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('bytes' as const),
        at: fc.nat(),
        removed: fc.nat(3),
        put: fc.constantFrom('', ',', ']', '}', '{', '"', '\\', '0', ',"messages":[]', ',{}', ',1', '\xff', '[[', ':'),
      }),
    },
  )
  let shared = 0
  fc.assert(
    fc.property(body, fc.array(change, { minLength: 1, maxLength: 3 }), (first, changes) => {
      const firstBytes = Buffer.from(join(first))
      if (typeof outcome(() => scanBody(firstBytes)) === 'string') return
      let parts: Parts = first
      let known = scanBody(firstBytes)
      for (const step of changes) {
        let bytes: Buffer
        if (step.kind === 'bytes') {
          const whole = Buffer.from(join(parts))
          const at = step.at % (whole.length + 1)
          bytes = Buffer.concat([
            whole.subarray(0, at),
            Buffer.from(step.put, 'latin1'),
            whole.subarray(at + step.removed),
          ])
        } else {
          if (step.kind === 'add') parts = { ...parts, messages: [...parts.messages, ...step.messages] }
          if (step.kind === 'edit' && step.at < parts.messages.length)
            parts = { ...parts, messages: parts.messages.with(step.at, step.message) }
          if (step.kind === 'tail') parts = { ...parts, after: step.after }
          bytes = Buffer.from(join(parts))
        }
        const expected = outcome(() => scanBody(bytes))
        const taken: NonNullable<ReturnType<typeof scanNextBody>>[] = []
        const actual = outcome(() => {
          const next = scanNextBody(bytes, known)
          if (next !== null) taken.push(next)
          return next?.body ?? scanBody(bytes)
        })
        assert.deepEqual(actual, expected)
        for (const { body: next, sharedMessages } of taken) {
          shared += sharedMessages
          known = next
        }
      }
    }),
    { numRuns: 3000 },
  )
  assert.ok(shared > 1000, `${shared} messages were shared`)
})

const chat = (contents: readonly string[]): Buffer =>
  Buffer.from(JSON.stringify({ model: 'm', messages: contents.map((content) => ({ role: 'user', content })) }))

test('the next turn takes over the messages of the last one, frozen, and takes its place', () => {
  const bodies = new KeptBodies(1024 * 1024)
  const first = bodies.read(chat(['a', 'b']), [1]).value['messages'] as object[]
  const bytes = bodies.bytes
  const second = bodies.read(chat(['a', 'b', 'c']), [1, 2]).value['messages'] as object[]
  assert.equal(second[0], first[0])
  assert.equal(second[1], first[1])
  assert.ok(second.every(Object.isFrozen))
  assert.ok(bodies.bytes < 2 * bytes, 'one body is kept')
  const branch = bodies.read(chat(['a', 'x']), [1]).value['messages'] as object[]
  assert.equal(branch[0], first[0])
  assert.notEqual(branch[1], first[1])
  assert.ok(bodies.bytes > 2 * bytes, 'a branch is kept beside what it left')
})

test('kept bodies never take more than their budget', () => {
  const bodies = new KeptBodies(40_000)
  const talk = (name: number): Buffer => chat([`${name}`, 'x'.repeat(3000)])
  for (let name = 0; name < 20; name += 1) {
    bodies.read(talk(name), [name])
    assert.ok(bodies.bytes <= 40_000)
  }

  bodies.read(chat(['y'.repeat(40_000)]), [99])
  assert.ok(bodies.bytes <= 40_000)
})
