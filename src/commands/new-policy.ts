import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { RouterError } from '../errors.ts'
import type { Command } from './command.ts'

const kinds = ['scorer', 'filter', 'fallback', 'picker'] as const
type Kind = (typeof kinds)[number]

export const newPolicy: Command = {
  name: 'new-policy',
  summary: 'begin a routing policy of your own, with its test',
  usage: `warmroute new-policy NAME [--kind ${kinds.join('|')}] [--dir FOLDER]

  NAME          name of the policy and of its npm package: small letters, digits and hyphens
  --kind KIND   what it is (default scorer); docs/write-a-policy.md tells them apart
  --dir FOLDER  where to put it (default: a folder with its name here)

It works as it is: "node --test FOLDER" plays decisions with it, and the config takes it under "plugins".`,
  run(argv, io) {
    const { values, positionals } = parseArgs({
      args: [...argv],
      options: { kind: { type: 'string', default: 'scorer' }, dir: { type: 'string' } },
      allowPositionals: true,
    })
    const [name, ...rest] = positionals
    if (name === undefined || rest.length > 0 || !/^[a-z][a-z0-9-]*$/.test(name))
      throw new RouterError('CONFIG_INVALID', 'new-policy takes one name of small letters, digits and hyphens')
    const kind = kinds.find((known) => known === values.kind)
    if (kind === undefined)
      throw new RouterError('CONFIG_INVALID', `--kind is one of ${kinds.join(', ')}, not "${values.kind}"`)
    const folder = resolve(values.dir ?? name)
    if (existsSync(folder)) throw new RouterError('CONFIG_INVALID', `${folder} exists already`)
    mkdirSync(folder, { recursive: true })
    const files = filesOf(name, kind)
    for (const [file, text] of Object.entries(files)) writeFileSync(join(folder, file), text)
    standIn(folder)
    const shown = values.dir ?? name
    io.out(`${shown}: ${Object.keys(files).join(', ')}`)
    io.out(`Try it:  node --test ${shown}/*.test.js     Use it:  plugins: [./${basename(folder)}/index.js]`)
    return Promise.resolve(0)
  },
}

/** Where the package is not installed, as in a checkout, a folder in its place hands over to the one that runs. */
function standIn(folder: string): void {
  try {
    createRequire(join(folder, 'index.js')).resolve('warmroute')
  } catch {
    const own = (place: string): string =>
      new URL(place + (import.meta.url.endsWith('.ts') ? '.ts' : '.js'), import.meta.url).href
    const installed = join(folder, 'node_modules', 'warmroute')
    mkdirSync(installed, { recursive: true })
    const files = {
      'package.json': '{ "type": "module", "exports": { ".": "./index.js", "./contract": "./contract.js" } }\n',
      'index.js': `export * from ${JSON.stringify(own('../index'))}\n`,
      'contract.js': `export * from ${JSON.stringify(own('../routing/contract/contract'))}\n`,
    }
    for (const [file, text] of Object.entries(files)) writeFileSync(join(installed, file), text)
  }
}

function filesOf(name: string, kind: Kind): Record<string, string> {
  return {
    'package.json': `${JSON.stringify(
      {
        name,
        version: '0.1.0',
        type: 'module',
        exports: './index.js',
        files: ['index.js'],
        scripts: { test: 'node --test' },
        peerDependencies: { warmroute: '*' },
      },
      null,
      2,
    )}\n`,
    'index.js': `import { definePolicy } from 'warmroute'

export default definePolicy({
  kind: '${kind}',
  type: '${name}',${kind === 'fallback' ? `\n  reason: '${name.replaceAll('-', '_')}',` : ''}
  description: 'One sentence for operators.',
  parameters: {
    type: 'object',
    properties: { ${parameterOf[kind]} },
    additionalProperties: false,
  },
${bodyOf[kind]}})
`,
    'index.test.js': `import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkPolicy } from 'warmroute/contract'
import policy from './index.js'

test('keeps the rules that the router relies on', () => {
  assert.deepEqual(checkPolicy(policy), [])
})
`,
  }
}

const parameterOf: Readonly<Record<Kind, string>> = {
  scorer: `msPerRequest: { type: 'number', minimum: 0, default: 5, description: 'What a request in flight costs.' }`,
  filter: `maxWaiting: { type: 'number', minimum: 0, default: 8, description: 'Requests waiting in the engine, at most.' }`,
  fallback: `maxTokens: { type: 'number', minimum: 0, default: 64, description: 'Longest prompt that it applies to.' }`,
  picker: `among: { type: 'integer', minimum: 1, default: 2, description: 'Best candidates of which one is drawn.' }`,
}

const bodyOf: Readonly<Record<Kind, string>> = {
  scorer: `  create({ msPerRequest }) {
    return {
      // Higher is better; costs are negated milliseconds, so that they add up with those of other scorers.
      score(request, fleet, match, out) {
        for (let i = 0; i < fleet.count; i++) out[i] = -msPerRequest * fleet.requests[i]
      },
    }
  },
`,
  filter: `  create({ maxWaiting }) {
    return {
      filter(request, fleet, match, keep) {
        // NaN, where the engine tells nothing, is never more.
        for (let i = 0; i < fleet.count; i++) if (fleet.waiting[i] > maxWaiting) keep[i] = 0
      },
    }
  },
`,
  fallback: `  create({ maxTokens }) {
    return {
      applies(request, fleet, match, keep) {
        return request.promptTokensEstimate <= maxTokens
      },
    }
  },
`,
  picker: `  create({ among }, { random }) {
    return {
      pick(request, fleet, match, totals, keep) {
        const kept = []
        for (let i = 0; i < fleet.count; i++) if (keep[i] === 1) kept.push(i)
        kept.sort((a, b) => totals[b] - totals[a])
        return kept[Math.floor(random() * Math.min(among, kept.length))]
      },
    }
  },
`,
}
