import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { flags } from '../../src/config/flags.ts'
import { loadConfig } from '../../src/config/load.ts'
import { checkPolicies } from '../../src/main.ts'

const pages = ['README.md', 'CONTRIBUTING.md', 'docs/admission.md'].map((name) =>
  readFileSync(new URL(`../../${name}`, import.meta.url), 'utf8'),
)

test('every config example is a config that runs', async () => {
  const examples = pages.flatMap((page) => [...page.matchAll(/```yaml\n(.*?)```/gs)].map(([, text]) => text ?? ''))
  assert.ok(examples.length > 0)
  for (const example of examples) {
    const file = join(mkdtempSync(join(tmpdir(), 'warmroute-readme-')), 'config.yaml')
    writeFileSync(file, example)
    await checkPolicies(loadConfig({ file }))
  }
})

test('every flag that is shown exists', () => {
  const known = new Set([...flags.map(({ name }) => name), 'config', 'url', 'once'])
  const shown = pages.flatMap((page) =>
    [...page.matchAll(/warmroute serve([^\n`]*)/g)].flatMap(([, words]) =>
      [...(words ?? '').matchAll(/--([a-z-]+)/g)].map(([, name]) => name ?? ''),
    ),
  )
  assert.ok(shown.includes('worker-urls'))
  for (const name of shown) assert.ok(known.has(name), `--${name}`)
})

test('every npm script that is shown exists', () => {
  const { scripts } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    scripts: Record<string, string>
  }
  const shown = pages.flatMap((page) => [...page.matchAll(/npm run ([a-z:]+)/g)].map(([, name]) => name ?? ''))
  for (const name of new Set(shown)) assert.ok(scripts[name] !== undefined, `npm run ${name}`)
})
