import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { cruise, type ICruiseOptions, type ICruiseResult, type IConfiguration } from 'dependency-cruiser'

const root = fileURLToPath(new URL('../..', import.meta.url))
const configuration = createRequire(import.meta.url)(join(root, '.dependency-cruiser.cjs')) as IConfiguration
const folder = mkdtempSync(join(root, '.cache-imports-'))
after(() => rmSync(folder, { recursive: true, force: true }))
symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))

/** A file of each room, and an import that its row of the table forbids. */
const forbidden: readonly (readonly [string, string])[] = [
  ['src/errors.ts', 'src/kv/a.ts'],
  ['src/faults.ts', 'src/kv/a.ts'],
  ['src/telemetry/a.ts', 'src/kv/a.ts'],
  ['src/kv/a.ts', 'src/map/a.ts'],
  ['src/zmtp/a.ts', 'src/events/a.ts'],
  ['src/config/a.ts', 'src/routing/a.ts'],
  ['src/tokenize/a.ts', 'src/kv/a.ts'],
  ['src/sizing/a.ts', 'src/kv/a.ts'],
  ['src/plot/a.ts', 'src/sizing/a.ts'],
  ['src/workers/a.ts', 'src/proxy/a.ts'],
  ['src/admission/a.ts', 'src/workers/a.ts'],
  ['src/map/a.ts', 'src/events/a.ts'],
  ['src/events/a.ts', 'src/workers/a.ts'],
  ['src/routing/a.ts', 'src/map/a.ts'],
  ['src/routing/filters/a.ts', 'src/routing/a.ts'],
  ['src/routing/scorers/a.ts', 'src/workers/a.ts'],
  ['src/routing/pickers/a.ts', 'src/kv/a.ts'],
  ['src/routing/sglang/a.ts', 'src/routing/a.ts'],
  ['src/routing/llm-d/a.ts', 'src/routing/a.ts'],
  ['src/routing/dynamo/a.ts', 'src/workers/a.ts'],
  ['src/truth/a.ts', 'src/events/a.ts'],
  ['src/protocol/a.ts', 'src/proxy/a.ts'],
  ['src/pipeline/a.ts', 'src/http/a.ts'],
  ['src/proxy/a.ts', 'src/routing/a.ts'],
  ['src/replication/a.ts', 'src/routing/a.ts'],
  ['src/pipeline.ts', 'src/http/a.ts'],
  ['src/http/a.ts', 'src/map/a.ts'],
  ['src/simulator/a.ts', 'src/map/a.ts'],
  ['src/gateway/a.ts', 'src/map/a.ts'],
  ['src/replay/a.ts', 'src/http/a.ts'],
  ['src/replay/b.ts', 'src/config/a.ts'],
  ['src/commands/a.ts', 'src/map/a.ts'],
  ['src/cli.ts', 'src/map/a.ts'],
  ['src/index.ts', 'src/map/a.ts'],
]

function write(path: string, source: string): string {
  const file = join(folder, path)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, source)
  return file
}

async function violations(paths: readonly string[]): Promise<string[]> {
  const options: ICruiseOptions = {
    ruleSet: { forbidden: configuration.forbidden ?? [] },
    validate: true,
    baseDir: folder,
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
  }
  const { output } = await cruise([...paths], options)
  return (output as ICruiseResult).summary.violations
    .filter(({ rule }) => rule.name.startsWith('room') || rule.name.startsWith('door'))
    .map(({ from, rule }) => `${from}: ${rule.name}`)
}

for (const [kind, line] of [
  ['a value import', (path: string) => `import { a } from '${path}'\nexport const b = a\n`],
  ['an import type', (path: string) => `import type { A } from '${path}'\nexport type B = A\n`],
] as const) {
  test(`each row of the import table refuses ${kind} that it does not list`, async () => {
    for (const [from, to] of forbidden) {
      rmSync(join(folder, 'src'), { recursive: true, force: true })
      write(to, 'export const a = 1\nexport type A = number\n')
      const up = '../'.repeat(from.split('/').length - 1)
      write(from, line(`${up}${to}`))
      const found = await violations([from, to])
      assert.ok(
        found.some((violation) => violation.startsWith(`${from}: room`)),
        `${from} may import ${to}: ${found.join(', ')}`,
      )
    }
  })
}

test('a library has one door', async () => {
  rmSync(join(folder, 'src'), { recursive: true, force: true })
  write('src/routing/a.ts', "import { request } from 'undici'\nexport const b = request\n")
  assert.deepEqual(await violations(['src/routing/a.ts']), ['src/routing/a.ts: door undici'])
})
