import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { CommandIo } from '../../src/commands/command.ts'
import { size } from '../../src/commands/size.ts'
import type { ReuseCurve } from '../../src/sizing/reuse-curve.ts'
import type { Sizing } from '../../src/sizing/sizing.ts'
import { command } from '../support/command.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const models = join(root, 'test/fixtures/sizing/models')
const page = readFileSync(join(root, 'docs/sizing.md'), 'utf8')

/** What the command prints. */
async function run(argv: readonly string[]): Promise<string> {
  let printed = ''
  const io: CommandIo = {
    out: (text) => (printed += `${text}\n`),
    error: (text) => assert.fail(text),
    environment: {},
    ended: new Promise(() => undefined),
    onHangup: () => undefined,
  }
  assert.equal(await size.run(argv, io), 0)
  return printed
}

async function figures(argv: readonly string[]): Promise<Sizing> {
  return JSON.parse(await run([...argv, '--json'])) as Sizing
}

function folder(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), 'sizing-'))
  t.after(() => rmSync(made, { recursive: true }))
  return made
}

const examples = [...page.matchAll(/```\n\$ warmroute size (.*)\n([^]*?)```/g)]

test('the page shows what the command prints for five models', async () => {
  assert.equal(examples.length, 5)
  for (const [, line = '', shown = ''] of examples) {
    const argv = line.split(' ').map((word) => (word.startsWith('test/') ? join(root, word) : word))
    assert.equal(shown, await run(argv), line)
  }
})

test('the example of the library runs and gives the figures of the page', async (t) => {
  const source = /```ts\n([^]*?)```/.exec(page)?.[1] ?? ''
  const file = join(folder(t), 'example.ts')
  const library = pathToFileURL(join(root, 'src/index.ts')).href
  writeFileSync(file, source.replace("'warmroute'", `'${library}'`))
  const { curve, sizing } = (await import(pathToFileURL(file).href)) as { curve: ReuseCurve; sizing: Sizing }
  const [, tokens, blocks] = /capacity\.tokens` is ([\d,]+) and `.*` (\d+): a cache/.exec(page) ?? []
  assert.equal(sizing.capacity.tokens.toLocaleString('en-US'), tokens)
  assert.equal(String(curve.capacityFor(curve.idealHitRatio)), blocks)
})

test('the program runs the command, and its help names every option', async (t) => {
  const help = command(t, ['size', '--help'])
  assert.equal(await help.exited, 0)
  for (const option of ['--model', '--gpu', '--trace', '--out', '--kv-memory', 'h100', 'mi300x'])
    assert.ok(help.out().includes(option), option)
  const sized = command(t, ['size', '--model', join(models, 'llama-3-8b.json'), '--gpu', 'l4'])
  assert.equal(await sized.exited, 0)
  assert.match(sized.out(), /KV bytes a token\s+131,072/)
  const wrong = command(t, ['size', '--model', join(models, 'llama-3-8b.json'), '--gpu', 'h1'])
  assert.equal(await wrong.exited, 1)
  assert.match(wrong.error(), /^warmroute size: No GPU "h1" in the table: b200/)
})

test('a model may be named by its folder', async (t) => {
  const directory = folder(t)
  writeFileSync(join(directory, 'config.json'), readFileSync(join(models, 'qwen3-32b.json')))
  assert.equal((await figures(['--model', directory, '--gpu', 'h100', '--tp', '2'])).tokenBytesPerRank, 131_072)
})

test('what the engine tells replaces every estimate of room', async () => {
  const tiny = ['--model', join(models, 'tiny-cpu.json')]
  const line = (sizing: Sizing) => sizing.logLine
  const forced = await figures([...tiny, '--blocks', '14', '--block-size', '128', '--max-model-len', '1024'])
  assert.equal(line(forced), 'GPU KV cache size: 1,792 tokens, Maximum concurrency for 1,024 tokens per request: 1.75x')
  const given = await figures([...tiny, '--kv-memory', '1GiB', '--block-size', '32'])
  assert.equal(
    line(given),
    'GPU KV cache size: 2,097,152 tokens, Maximum concurrency for 8,192 tokens per request: 256.00x',
  )
  assert.ok(!(await run([...tiny, '--kv-memory', '1GiB'])).split('Load or compute')[0]?.includes('~'))
})

test('a workload gives sizes of tiers and the reach of given ones', async () => {
  const argv = ['--model', join(models, 'llama-3-8b.json'), '--gpu', 'l4', '--workers', '4']
  const trace = join(root, 'test/fixtures/traces/mooncake_conversation.jsonl')
  const { tierReach, tierSizes } = await figures([
    ...argv,
    ...['--trace', trace, '--hit-ratios', '0.2,0.9', '--host-memory', '64GiB', '--disk', '1TiB'],
  ])
  assert.deepEqual(
    tierSizes.map(({ tokens, wantedHitRatio }) => [wantedHitRatio, tokens === null]),
    [
      [0.2, false],
      [0.9, true],
    ],
  )
  assert.deepEqual(
    tierReach.map(({ tier }) => tier),
    ['gpu', 'host', 'disk'],
  )
  assert.equal((tierReach[1]?.tokens ?? 0) - (tierReach[0]?.tokens ?? 0), (4 * 64 * 2 ** 30) / 131_072)
})

test('plots are written as SVG and in a page', async (t) => {
  const directory = join(folder(t), 'plots')
  const trace = join(root, 'test/fixtures/traces/mooncake_conversation.jsonl')
  await run(['--model', join(models, 'llama-3-8b.json'), '--gpu', 'l4', '--trace', trace, '--out', directory])
  assert.deepEqual(readdirSync(directory).sort(), ['concurrency.svg', 'hit-ratio.svg', 'sizing.html'])
  const html = readFileSync(join(directory, 'sizing.html'), 'utf8')
  assert.equal(html.match(/<svg /g)?.length, 2)
  assert.match(html, /KV bytes a token {3}131,072/)
  assert.doesNotMatch(html, /NaN|Infinity|undefined/)
})

const llama = ['--model', join(models, 'llama-3-8b.json')]
const faults: readonly (readonly [string, readonly string[], string, RegExp])[] = [
  ['no model', ['--gpu', 'l4'], 'CONFIG_INVALID', /--model CONFIG\.json/],
  ['a model that is not there', ['--model', '/nowhere'], 'CONFIG_UNREADABLE', /\/nowhere/],
  ['a model that is no JSON', ['--model', fileURLToPath(import.meta.url)], 'CONFIG_UNREADABLE', /no JSON/],
  ['no GPU', llama, 'CONFIG_INVALID', /--gpu-memory/],
  ['a GPU that is too small', [...llama, '--gpu', 't4'], 'CONFIG_INVALID', /No memory is left.*Take more GPUs/],
  ['no size', [...llama, '--gpu-memory', 'much'], 'CONFIG_INVALID', /--gpu-memory takes a size/],
  ['no count', [...llama, '--gpu', 'l4', '--tp', '1.5'], 'CONFIG_INVALID', /--tp takes a whole number/],
  ['too much utilization', [...llama, '--gpu', 'l4', '--gpu-memory-utilization', '1.1'], 'CONFIG_INVALID', /1 at most/],
  ['no such KV type', [...llama, '--gpu', 'l4', '--kv-cache-dtype', 'int4'], 'CONFIG_INVALID', /one of auto/],
  ['a tier without a workload', [...llama, '--gpu', 'l4', '--disk', '1TiB'], 'CONFIG_INVALID', /--trace FILE/],
  ['a trace that is not there', [...llama, '--gpu', 'l4', '--trace', '/nowhere'], 'CONFIG_UNREADABLE', /\/nowhere/],
]
for (const [what, argv, code, message] of faults) {
  test(`${what} is refused with what to do`, async () => {
    await assert.rejects(run(argv), { code, message })
  })
}

test('an engine that cannot hold one sequence is pointed out', async () => {
  const { notes } = await figures([...llama, '--gpu', 'l4', '--max-model-len', '131072'])
  assert.match(notes.join(), /not even one sequence of 131072 tokens/)
})
