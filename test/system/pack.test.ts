import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import { command, servedUrls } from '../support/command.ts'
import { fleetFor, model, postTo, prose } from '../support/fleet.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const run = promisify(execFile)

interface Package {
  readonly name: string
  readonly version: string
  readonly dependencies: Readonly<Record<string, string>>
}

const { name, version, dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Package
const packs = mkdtempSync(join(tmpdir(), 'warmroute-packed-'))
before(() => run('npm', ['pack', '--pack-destination', packs, '--loglevel=error'], { cwd: root }))
after(() => rmSync(packs, { recursive: true, force: true }))

/** Lays the packed package out as an install does: its files under node_modules, its dependencies beside it. */
async function installed(folder: string): Promise<string> {
  const home = join(folder, 'node_modules', name)
  mkdirSync(home, { recursive: true })
  await run('tar', ['-xzf', join(packs, `${name}-${version}.tgz`), '--strip-components=1', '-C', home])
  for (const dependency of Object.keys(dependencies)) {
    const place = join(folder, 'node_modules', dependency)
    mkdirSync(dirname(place), { recursive: true })
    symlinkSync(join(root, 'node_modules', dependency), place)
  }
  return home
}

const packagePlugin = `
export const stickyPicker = {
  kind: 'picker',
  type: 'highest-id',
  description: 'The candidate whose id sorts last.',
  parameters: { type: 'object', properties: {}, additionalProperties: false },
  create: () => ({
    pick(request, fleet, match, totals, keep) {
      let chosen = -1
      for (let i = 0; i < fleet.count; i++) {
        if (keep[i] === 1 && (chosen === -1 || totals[i] > totals[chosen] || (totals[i] === totals[chosen] && fleet.ids[i] > fleet.ids[chosen]))) chosen = i
      }
      return chosen
    },
  }),
}
`

const filePlugin = `
import { definePolicy, type PolicyFleet, type PolicyMatch, type PolicyRequest } from 'warmroute'

export default definePolicy({
  kind: 'scorer',
  type: 'cached-tokens',
  description: 'Cached tokens, times a factor.',
  parameters: { type: 'object', properties: { factor: { type: 'number', default: 2 } }, additionalProperties: false },
  create: ({ factor }: { factor: number }) => ({
    score(_request: PolicyRequest, fleet: PolicyFleet, match: PolicyMatch, out: Float64Array): void {
      for (let i = 0; i < fleet.count; i++) out[i] = factor * (match.cachedTokens[i] as number)
    },
  }),
} as never)
`

test('the packed package serves elsewhere, with threads and both kinds of plugin', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-pack-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const fleet = await fleetFor(t, { workers: 2 })
  const home = await installed(folder)
  const bin = join(home, 'bin', 'warmroute.js')
  assert.equal(existsSync(join(home, 'src')), false, 'the package ships the build only')
  assert.equal(existsSync(join(home, 'dist', 'tokenize', 'tokenize.thread.js')), true)
  assert.equal(existsSync(join(home, 'test')), false)

  const pluginHome = join(folder, 'node_modules', 'highest-id-picker')
  mkdirSync(pluginHome)
  writeFileSync(
    join(pluginHome, 'package.json'),
    JSON.stringify({ name: 'highest-id-picker', version: '1.0.0', type: 'module', exports: './index.js' }),
  )
  writeFileSync(join(pluginHome, 'index.js'), packagePlugin)
  writeFileSync(join(folder, 'scorer.ts'), filePlugin)
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  const config = join(folder, 'config.yaml')
  writeFileSync(
    config,
    JSON.stringify({
      listen: { port: 0 },
      plugins: ['highest-id-picker', './scorer.ts'],
      pools: [
        {
          model,
          tokenizer: join(home, 'config', 'tokenizers', 'demo'),
          profile: {
            name: 'mine',
            scorers: [{ type: 'cached-tokens', parameters: { factor: 3 } }],
            picker: { type: 'highest-id' },
          },
          workers: fleet.simulators.urls.map((url) => ({ url })),
        },
      ],
    }),
  )

  const help = command(t, ['serve', '--help'], { bin, cwd: folder })
  assert.equal(await help.exited, 0, help.error())
  assert.match(help.out(), /--worker-urls/)
  const check = command(t, ['check-config', config], { bin, cwd: folder })
  assert.equal(await check.exited, 0, check.error())

  const running = command(t, ['serve', '--config', config], { bin, cwd: folder })
  const { publicUrl, adminUrl } = await servedUrls(running)
  // Long enough to be read and tokenized on a thread.
  const body = { model, messages: [{ role: 'user', content: prose('packed', 8000) }], max_tokens: 2 }
  const chosen: string[] = []
  for (let turn = 0; turn < 2; turn++) {
    const answer = await postTo(`${publicUrl}/v1/chat/completions`, body)
    assert.equal(answer.status, 200, await answer.text())
    chosen.push(answer.headers.get('x-warmroute-worker') ?? '')
  }
  assert.deepEqual(
    chosen,
    [0, 1].map(() => [...fleet.simulators.urls].sort().at(-1)),
  )
  const { decisions } = (await (await fetch(`${adminUrl}/admin/decisions`)).json()) as { decisions: DecisionRecord[] }
  assert.equal(decisions.length, 2)
  for (const decision of decisions) {
    assert.equal(decision.profile, 'mine')
    assert.ok(decision.promptTokens > 8000)
    assert.notEqual(decision.fallback, 'tokenizer_failed')
    assert.deepEqual(Object.keys(decision.candidates[0]?.scores ?? {}), ['cached-tokens'])
  }
  running.child.kill('SIGTERM')
  assert.equal(await running.exited, 0, running.error())

  const simulate = command(
    t,
    ['simulate', '--workers', '1', '--http-port', '0', '--events-port', '0', '--replay-port', '0'],
    { bin, cwd: folder },
  )
  const { until } = await import('../support/until.ts')
  await until(
    () => /http:\/\/127\.0\.0\.1:\d+/.test(simulate.out()),
    'the packed simulator finds its tokenizer',
    10_000,
  )
  simulate.child.kill('SIGTERM')
  assert.equal(await simulate.exited, 0)
})

test('a policy begun with the packed package keeps the contract and routes, and so do the examples', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-policies-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const home = await installed(folder)
  const bin = join(home, 'bin', 'warmroute.js')
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  const kinds = ['scorer', 'filter', 'fallback', 'picker']
  for (const kind of kinds) {
    const begun = command(t, ['new-policy', `my-${kind}`, '--kind', kind], { bin, cwd: folder })
    assert.equal(await begun.exited, 0, begun.error())
  }
  const twice = command(t, ['new-policy', 'my-scorer'], { bin, cwd: folder })
  assert.equal(await twice.exited, 1)
  assert.match(twice.error(), /exists already/)
  cpSync(join(root, 'examples', 'policies'), join(folder, 'examples'), { recursive: true })
  writeFileSync(
    join(folder, 'examples.test.js'),
    `import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { checkPolicy } from 'warmroute/contract'
for (const name of ['gpu-price', 'tenant-isolation', 'time-of-day']) {
  const { default: policy } = await import('./examples/' + name + '.js')
  test(name, () => assert.deepEqual(checkPolicy(policy), []))
}
`,
  )
  const { stdout } = await run(process.execPath, ['--test', '--test-reporter=tap', ...testFiles(kinds)], {
    cwd: folder,
    env: { ...process.env, NODE_TEST_CONTEXT: undefined },
  })
  assert.match(stdout, /# pass 7\n# fail 0/)
  const check = command(t, ['check-config', join(folder, 'examples', 'config.yaml')], { bin, cwd: folder })
  assert.equal(await check.exited, 0, check.error())
})

const testFiles = (kinds: readonly string[]): string[] => [
  ...kinds.map((kind) => `my-${kind}/index.test.js`),
  'examples.test.js',
]
