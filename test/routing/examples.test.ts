import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { createProfile, type ProfileChoice } from '../../src/routing/catalogue.ts'
import { definePolicy, type PolicyPlugin, type PolicyRequest } from '../../src/routing/policy.ts'
import type { Profile } from '../../src/routing/profile.ts'
import { InFlightCounters } from '../../src/workers/fleet.ts'
import type { Worker } from '../../src/workers/worker.ts'
import { seededRandom } from '../support/random.ts'
import { aRequest, aWorker, candidatesOf } from '../support/routing.ts'

const folder = new URL('../../examples/policies/', import.meta.url)
const textOf = (name: string): string => readFileSync(fileURLToPath(new URL(name, folder)), 'utf8')

/** The example as a user's project would load it, the package's name standing for this checkout. */
async function example(name: string): Promise<PolicyPlugin> {
  const source = textOf(name).replace(/import .* from 'warmroute'/, 'const { definePolicy } = globalThis')
  Object.assign(globalThis, { definePolicy })
  const module = (await import(`data:text/javascript,${encodeURIComponent(source)}`)) as { default: PolicyPlugin }
  return module.default
}

const plugins = await Promise.all(['gpu-price.js', 'tenant-isolation.js', 'time-of-day.js'].map(example))

function profileOf(choice: ProfileChoice, hour = 12): Profile {
  return createProfile(choice, {
    context: {
      clock: () => 0,
      wallClock: () => 1_800_000_000_000 - 28_800_000 + hour * 3_600_000,
      random: seededRandom(1),
    },
    workers: 8,
    fault: (plugin, error) => assert.fail(`${plugin}: ${String(error)}`),
    more: plugins,
  })
}

function chosen(profile: Profile, workers: readonly Worker[], request: Partial<PolicyRequest> = {}): number {
  const candidates = candidatesOf(workers, new InFlightCounters(64))
  return profile.choose(aRequest(request), candidates, candidates)
}

const labelled = (...labels: readonly Record<string, string>[]): Worker[] =>
  labels.map((each, index) => aWorker(index, { labels: each }))

test('the example gpu-price takes the cheaper of two idle GPUs', () => {
  const profile = profileOf({ scorers: [{ type: 'predicted-ttft' }, { type: 'gpu-price' }] })
  assert.equal(chosen(profile, labelled({ pricePerHour: '6.9' }, { pricePerHour: '2.1' })), 1)
  assert.equal(chosen(profile, labelled({ pricePerHour: '2.1' }, { pricePerHour: '6.9' })), 0)
})

test('the example tenant-isolation keeps keys and workers apart, and refuses where a tenant has nowhere to go', () => {
  const profile = profileOf({ filters: [{ type: 'tenant-isolation' }], picker: { type: 'random' } })
  const workers = labelled({}, { tenants: 'acme' }, { tenants: 'globex, initech' })
  for (let times = 0; times < 20; times++) {
    assert.equal(chosen(profile, workers, { keyId: 'acme' }), 1)
    assert.equal(chosen(profile, workers, { keyId: 'initech' }), 2)
    assert.equal(chosen(profile, workers, { keyId: 'anybody' }), 0)
  }
  assert.equal(chosen(profile, workers.slice(1), { keyId: 'anybody' }), -1)
  assert.equal(profile.refusedBy, 'tenant-isolation')
})

test('the example time-of-day hands over between its hours, also across midnight', () => {
  const used = (hour: number, parameters: object): string => {
    const profile = profileOf(
      { name: 'day', fallbacks: [{ type: 'time-of-day', parameters: { ...parameters }, use: 'random' }] },
      hour,
    )
    chosen(profile, labelled({}, {}))
    return profile.used.name
  }
  const night = { fromHour: 22, untilHour: 6 }
  assert.deepEqual(
    [21.9, 22, 23.9, 0, 5.9, 6].map((hour) => used(hour, night)),
    ['day', 'random', 'random', 'random', 'random', 'day'],
  )
  assert.deepEqual(
    [8.9, 9, 16.9, 17].map((hour) => used(hour, { fromHour: 9, untilHour: 17 })),
    ['day', 'random', 'random', 'day'],
  )
})

test('docs/write-a-policy.md shows the examples as they are', () => {
  const page = readFileSync(new URL('../../docs/write-a-policy.md', import.meta.url), 'utf8')
  const shown = [...page.matchAll(/<!-- examples\/policies\/(.*?) -->\n\n```js\n(.*?)```/gs)]
  assert.deepEqual(
    shown.map(([, name]) => name),
    ['gpu-price.js', 'tenant-isolation.js', 'time-of-day.js'],
  )
  for (const [, name = '', code] of shown) assert.equal(code, textOf(name), name)
})
