import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { generatedDocs } from '../../scripts/docs.ts'
import { errorCodes } from '../../src/errors.ts'
import { plugins } from '../../src/routing/catalogue.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const text = (path: string): string => readFileSync(join(root, path), 'utf8')
const files = (folder: string): string[] =>
  readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length))

test('generated docs are fresh', async () => {
  for (const [path, fresh] of Object.entries(await generatedDocs()))
    assert.equal(text(path), fresh, `${path}: run "npm run docs"`)
})

test('docs/errors.md tells every error code with its status, and no other', () => {
  const told = [...text('docs/errors.md').matchAll(/^\| `([A-Z0-9_]+)` \|(?: (\d{3}) \|)?/gm)].map(
    ([, code, status]) => [code, status] as const,
  )
  assert.deepEqual(told.map(([code]) => code).sort(), Object.keys(errorCodes).sort())
  for (const [code, status] of told) {
    if (status !== undefined) assert.equal(Number(status), errorCodes[code as keyof typeof errorCodes].status, code)
  }
})

test('every error code is raised somewhere', () => {
  const source = files('src')
    .filter((path) => path !== 'src/errors.ts')
    .map(text)
    .join('\n')
  for (const code of Object.keys(errorCodes))
    assert.ok(source.includes(`'${code}'`), `${code} is declared and never raised`)
})

test('every metric is counted or read somewhere', () => {
  const source = files('src')
    .filter((path) => path !== 'src/telemetry/metrics.ts')
    .map(text)
    .join('\n')
  const declared = text('src/telemetry/metrics.ts')
  for (const [, field] of declared.matchAll(/^ {4}(\w+): (?:counted|timed)\(/gm))
    assert.match(source, new RegExp(`metrics\\.${field ?? ''}\\b`), `metric ${field ?? ''}`)
  for (const [, name] of declared.matchAll(/^ {2}(?:gauge|kept)\('(\w+)'/gm)) {
    if (name !== 'event_loop_delay_seconds')
      assert.ok(source.includes(`'${name ?? ''}'`), `gauge ${name ?? ''} has no reader`)
  }
})

test('every policy plugin has a test', () => {
  const tests = files('test/routing').map(text).join('\n')
  for (const { type } of plugins) assert.ok(tests.includes(type), `no test names the policy "${type}"`)
})

test('every folder of fixtures tells its origin', () => {
  const folders = readdirSync(join(root, 'test/fixtures'), { withFileTypes: true }).filter((entry) =>
    entry.isDirectory(),
  )
  assert.ok(folders.length > 0)
  for (const { name } of folders) {
    const notes = readdirSync(join(root, 'test/fixtures', name)).filter((file) => /(README|ORIGIN).*\.md$/i.test(file))
    assert.ok(notes.length > 0, `test/fixtures/${name} has no note of origin`)
  }
})

test('links between docs lead somewhere', () => {
  for (const page of [
    'README.md',
    'CONTRIBUTING.md',
    'CHANGELOG.md',
    ...files('docs').filter((path) => path.endsWith('.md')),
  ]) {
    for (const [, target] of text(page).matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)) {
      assert.ok(existsSync(join(root, page, '..', target ?? '')), `${page} → ${target ?? ''}`)
    }
  }
})

test('nothing depends on a place on somebody’s machine', () => {
  for (const path of [
    'README.md',
    'CONTRIBUTING.md',
    'CHANGELOG.md',
    'package.json',
    ...['src', 'docs', 'scripts', 'bench', 'bin', 'config'].flatMap(files),
  ]) {
    assert.doesNotMatch(text(path), /\/(work|home|root|Users)\/[a-z]|\.\.\/shared/, path)
  }
})

test('every thread entry is started somewhere', () => {
  const source = files('src')
  const threads = source.filter((path) => path.endsWith('.thread.ts'))
  assert.ok(threads.length > 0)
  for (const thread of threads) {
    const name = thread.replace(/^.*\/|\.ts$/g, '')
    assert.ok(
      source.some((path) => path !== thread && text(path).includes(`./${name}`)),
      `${thread} is never started`,
    )
  }
})
