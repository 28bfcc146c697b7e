import assert from 'node:assert/strict'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadConfig } from '../../src/config/load.ts'
import { printedConfig } from '../../src/config/print.ts'
import { RouterError } from '../../src/errors.ts'
import { fuzz, type Chance } from '../support/fuzz.ts'

const whole = `
listen: { host: 127.0.0.1, port: 8080, tls: { cert: a.pem, key: b.pem } }
admin: { host: 127.0.0.1, port: 8081, keyHash: "sha256:${'0'.repeat(64)}" }
limits: { bodyBytes: 1000000, connections: 10 }
forwarded: { trustedProxies: [10.0.0.0/8, "::1"] }
apiKeys: [{ id: a, hash: "sha256:${'1'.repeat(64)}", models: [m], weight: 2 }]
pools:
  - model: m
    aliases: [other, names]
    tokenizer: ./tokenizer
    profile: { scorers: [{ type: prefix, weight: 1.5, parameters: { a: [1, 2] } }], picker: { type: random } }
    workers:
      - url: http://user:secret@127.0.0.1:8000
        engine: vllm
        events: { endpoint: "tcp://127.0.0.1:5557" }
        tls: { ca: ca.pem }
      - { url: "https://[::1]:8443/path/", ranks: 4, labels: { zone: a }, headers: { x: y }, events: false }
plugins: [./policy.ts]
`
const bits = [
  '!!',
  '&a',
  '*a',
  '<<: *a',
  '{',
  '}',
  '[',
  ']',
  '- ',
  ': ',
  '? ',
  '|',
  '>',
  '#',
  '"',
  "'",
  '\t',
  '\n',
  '%',
  '@',
  '`',
  'null',
  '~',
  '0x1F',
  '1e999',
  '.nan',
  '__proto__: 1',
  'constructor',
  'http://',
  'url: //',
  '\0',
  '\ud800',
  '---',
  '...',
  '!!js/function',
  '- - - -',
]

function mutated(chance: Chance): string {
  const lines = whole.split('\n')
  if (chance.oneIn(3)) lines.splice(chance.below(lines.length), 1 + chance.below(3))
  if (chance.oneIn(3)) lines.splice(chance.below(lines.length), 0, chance.pick(lines))
  let text = lines.join('\n')
  if (chance.oneIn(3)) text = text.replace(/\d+|[a-z]+/g, (word) => (chance.oneIn(40) ? chance.pick(bits) : word))
  return chance.oneIn(5)
    ? text
    : chance.mutated(Buffer.from(text), () => Buffer.from(chance.pick(bits))).toString('utf8')
}

test('no config file prints a stack: it is taken, or every fault is told in a line', async (t) => {
  const file = join(mkdtempSync(join(tmpdir(), 'warmroute-fuzz-')), 'config.yaml')
  let taken = 0
  const warnings: string[] = []
  const warned = (warning: Error): number => warnings.push(warning.message)
  process.on('warning', warned)
  t.after(() => process.off('warning', warned))
  await fuzz(t, (chance) => {
    writeFileSync(file, mutated(chance))
    try {
      const config = loadConfig({ file })
      const printed = printedConfig(config)
      assert.doesNotMatch(printed, /user:secret@/)
      taken++
    } catch (error) {
      assert.ok(error instanceof RouterError, error instanceof Error ? error.stack : String(error))
      assert.ok(error.code === 'CONFIG_INVALID' || error.code === 'CONFIG_UNREADABLE')
      assert.doesNotMatch(error.message, /\n {4}at |undefined|\[object Object\]/)
    }
  })
  assert.ok(taken > 0)
  assert.deepEqual(warnings, [], 'a warning would quote the file, keys and all')
})
