import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { checkConfig } from '../../src/config/load.ts'
import { checkPolicies } from '../../src/main.ts'
import { command } from '../support/command.ts'
import { editedFile } from '../support/edited-file.ts'
import { fleetFor, type FleetOptions } from '../support/fleet.ts'
import { until } from '../support/until.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const policyModule = fileURLToPath(new URL('../../src/routing/policy.ts', import.meta.url))

/** A picker in TypeScript whose `pick` has this body. */
const pickerThat = (body: string): string => `
import { definePolicy } from ${JSON.stringify(policyModule)}
export default definePolicy({
  kind: 'picker',
  type: 'mine',
  description: 'As the test says.',
  parameters: { type: 'object', properties: {}, additionalProperties: false },
  create: () => ({
    pick(request, fleet, match, totals, keep) {
      ${body}
    },
  }),
} as never)
`
const firstBy = (order: string): string => `
  let chosen = -1
  for (let i = 0; i < fleet.count; i++)
    if (keep[i] === 1 && (chosen === -1 || ${order})) chosen = i
  return chosen`
const lowest = firstBy('fleet.ids[i] < fleet.ids[chosen]')
const highest = firstBy('fleet.ids[i] > fleet.ids[chosen]')

function withPlugin(path: string, limits: object = {}): FleetOptions {
  return {
    workers: 2,
    config: { plugins: [path], pluginLimits: limits },
    pool: { profile: { name: 'mine', picker: { type: 'mine' } } },
  }
}

test('plugins mean the router that loads them by the name of its package, wherever they lie', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-plugins-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  cpSync(join(root, 'examples', 'policies'), folder, { recursive: true })
  const check = command(t, ['check-config', 'config.yaml'], { cwd: folder })
  assert.equal(await check.exited, 0, check.error())
})

test('a policy that a checkout begins keeps the contract where nothing is installed', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-policy-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const begun = command(t, ['new-policy', 'mine'], { cwd: folder })
  assert.equal(await begun.exited, 0, begun.error())
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--test', '--test-reporter=tap', 'mine/index.test.js'],
    {
      cwd: folder,
      env: { ...process.env, NODE_TEST_CONTEXT: undefined },
    },
  )
  assert.match(stdout, /# pass 1\n# fail 0/)
})

test('an edited plugin is taken by a reload as it runs, and a bad edit leaves the one before', async (t) => {
  const { path, write } = editedFile(t, 'policy.ts', pickerThat(lowest))
  const fleet = await fleetFor(t, withPlugin(path))
  const [low, high] = [...fleet.simulators.urls].sort()
  const chosen = async (): Promise<string | null> => {
    const answer = await fleet.chat('hello')
    await answer.text()
    return answer.headers.get('x-warmroute-worker')
  }
  assert.equal(await chosen(), low)
  write(pickerThat(highest))
  await fleet.router.reload()
  assert.equal(await chosen(), high)
  write(pickerThat('return fleet.count'))
  assert.equal(await fleet.router.reload(), 'failed')
  assert.equal(await chosen(), high)
  const fault = fleet.log.findLast(({ level }) => level === 'error')?.fields['fault']
  assert.match(String(fault), /policy\.ts.*picker "mine" breaks the rule picks-nobody/)
  write(pickerThat('not a program'))
  assert.equal(await fleet.router.reload(), 'failed')
  assert.equal(await chosen(), high)
})

test('a plugin that never returns is refused, with its place, before it can stop the process', async (t) => {
  const { path } = editedFile(t, 'policy.ts', pickerThat('while (true);'))
  const config = checkConfig({
    plugins: [path],
    pluginLimits: { trialMs: 1500 },
    pools: [{ model: 'm', profile: { picker: { type: 'mine' } }, workers: [] }],
  })
  await assert.rejects(checkPolicies(config), {
    code: 'PLUGIN_INVALID',
    message: `plugins: "${path}" did not return from a trial within 1500 ms (pluginLimits.trialMs)`,
  })
})

test('a plugin that begins to fail is skipped, counted and then left out, and no request fails', async (t) => {
  const { path } = editedFile(
    t,
    'policy.ts',
    // Sound while it is tried: the trial's workers have other names.
    pickerThat(`if (fleet.ids[0].includes('127.0.0.1')) throw new Error('surprise')\n${lowest}`),
  )
  const fleet = await fleetFor(t, withPlugin(path, { faults: 3 }))
  for (let times = 0; times < 10; times++) {
    const answer = await fleet.chat('hello')
    assert.equal(answer.status, 200)
    await answer.text()
  }
  assert.equal(await fleet.metric('policy_errors_total', { plugin: 'mine' }), 3)
  assert.equal(await fleet.metric('policy_pauses_total', { plugin: 'mine' }), 1)
  assert.equal(fleet.log.filter(({ message }) => message.includes('left out for a while')).length, 1)
})

test('a plugin’s file is watched', async (t) => {
  const { path, write } = editedFile(t, 'policy.ts', pickerThat(lowest))
  const options = withPlugin(path)
  const fleet = await fleetFor(t, { ...options, config: { ...options.config, reload: { pollMs: 100 } } })
  const high = [...fleet.simulators.urls].sort().at(-1)
  write(pickerThat(highest))
  await until(async () => {
    const answer = await fleet.chat('hello')
    await answer.text()
    return answer.headers.get('x-warmroute-worker') === high
  }, 'the edit is in force')
})
