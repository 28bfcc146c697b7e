import assert from 'node:assert/strict'
import { test } from 'node:test'
import { loadConfig } from '../../src/config/load.ts'
import { RouterError } from '../../src/errors.ts'
import { checkPolicies, policyNotes } from '../../src/main.ts'
import { profileChoice } from '../../src/main/policies.ts'
import { translateEndpointPickerConfig } from '../../src/routing/llm-d/endpoint-picker-config.ts'
import { readYaml } from '../../src/config/yaml.ts'
import { fileURLToPath } from 'node:url'

function fixture(name: string): string {
  return fileURLToPath(new URL(`../fixtures/endpoint-picker/${name}.yaml`, import.meta.url))
}

function translated(name: string) {
  return translateEndpointPickerConfig(readYaml(fixture(name), 'fixture'), `${name}.yaml`)
}

test('filters, weighted scorers and the picker are taken as they stand', () => {
  assert.deepEqual(translated('plain').profile, {
    name: 'llm-d',
    filters: [{ type: 'decode-filter', parameters: {} }],
    scorers: [{ type: 'prefix-cache-scorer', weight: 4, parameters: {} }],
    picker: { type: 'max-score-picker', parameters: {} },
  })
})

test('plugins are found by name, a weight is 1 and the picker max-score-picker where none is given', () => {
  const { profile } = translated('precise')
  assert.deepEqual(profile.scorers, [
    { type: 'prefix-cache-scorer', weight: 3, parameters: { matchLengthWeight: 0.25 } },
    { type: 'kv-cache-utilization-scorer', weight: 2, parameters: {} },
    { type: 'queue-scorer', weight: 1, parameters: {} },
    { type: 'no-hit-lru-scorer', weight: 0.5, parameters: { lruSize: 64 } },
  ])
  assert.equal(profile.picker.type, 'max-score-picker')
})

test('producers, data sources, flow control and parsers are named as the router’s own work', () => {
  const { notes } = translated('affinity')
  for (const type of [
    'approx-prefix-cache-producer',
    'inflight-load-producer',
    'round-robin-fairness-policy',
    'concurrency-detector',
    'openai-parser',
  ])
    assert.ok(
      notes.some((note) => note.includes(`"${type}" is handled by the router itself`)),
      type,
    )
  for (const section of ['featureGates', 'flowControl', 'requestHandler'])
    assert.ok(notes.includes(`${section}: handled by the router itself`), section)
})

test('a plugin that filters and scores does both where it is told to filter', () => {
  const { profile } = translated('affinity')
  assert.deepEqual(
    profile.filters.map(({ type }) => type),
    ['label-selector-filter', 'utilization-filter', 'prefix-cache-affinity-filter', 'context-length-aware'],
  )
  assert.deepEqual(
    profile.scorers.map(({ type, weight }) => [type, weight]),
    [
      ['context-length-aware', 1],
      ['session-affinity-scorer', 5],
      ['token-load-scorer', 1],
      ['active-request-scorer', 1],
    ],
  )
  const scoring = translateEndpointPickerConfig(
    { apiVersion: 'llm-d.ai/v1alpha1', kind: 'EndpointPickerConfig', plugins: [{ type: 'context-length-aware' }] },
    'epp.yaml',
  )
  assert.deepEqual([scoring.profile.filters.length, scoring.profile.scorers.length], [0, 1])
})

test('deprecated names are taken with a note, and without profiles all plugins are used', () => {
  const { profile, notes } = translated('older')
  assert.deepEqual(
    [...profile.filters, ...profile.scorers].map(({ type }) => type),
    ['by-label', 'prefix-cache-scorer', 'load-aware-scorer', 'session-affinity-scorer'],
  )
  for (const pattern of [
    /^apiVersion: deprecated/,
    /^plugins\[0\]: "precise-prefix-cache-scorer" is deprecated/,
    /^plugins\[1\]: "by-label" is deprecated/,
    /^plugins\[3\]: .*x-session-id/,
    /^plugins\[4\]: "data-parallel-profile-handler" is handled/,
    /^saturationDetector: handled/,
  ])
    assert.ok(
      notes.some((note) => pattern.test(note)),
      String(pattern),
    )
})

const head = { apiVersion: 'llm-d.ai/v1alpha1', kind: 'EndpointPickerConfig' }
const faulty: readonly (readonly [string, unknown, RegExp])[] = [
  [
    'an unknown plugin type',
    { ...head, plugins: [{ type: 'queue-scorer' }, { type: 'my-scorer' }] },
    /^epp\.yaml: plugins\[1\]: unknown plugin type "my-scorer"$/,
  ],
  [
    'a slip of the pen in a type',
    { ...head, plugins: [{ type: 'quue-scorer' }] },
    /plugins\[0\]: unknown plugin type "quue-scorer"; did you mean "queue-scorer"\?/,
  ],
  [
    'a type without counterpart',
    { ...head, plugins: [{ type: 'disagg-profile-handler' }] },
    /plugins\[0\]: the plugin type "disagg-profile-handler" has no counterpart: /,
  ],
  [
    'an unknown parameter',
    { ...head, plugins: [{ type: 'load-aware-scorer', parameters: { treshold: 3 } }] },
    /plugins\[0\] \("load-aware-scorer"\): unknown parameter "treshold"; did you mean "threshold"\?/,
  ],
  [
    'a parameter out of range',
    { ...head, plugins: [{ type: 'prefix-cache-scorer', parameters: { matchLengthWeight: 2 } }] },
    /plugins\[0\] \("prefix-cache-scorer"\): matchLengthWeight: must be <= 1, not 2/,
  ],
  [
    'a name given twice',
    { ...head, plugins: [{ type: 'queue-scorer' }, { type: 'queue-scorer' }] },
    /plugins\[1\]: the name "queue-scorer" is given twice/,
  ],
  [
    'a reference to nothing',
    { ...head, plugins: [], schedulingProfiles: [{ name: 'a', plugins: [{ pluginRef: 'b' }] }] },
    /schedulingProfiles\[0\]: "b" is not among the plugins/,
  ],
  [
    'several profiles',
    { ...head, schedulingProfiles: [{ name: 'prefill' }, { name: 'decode' }] },
    /one profile a pool is what there is, not prefill, decode/,
  ],
  ['another kind', { apiVersion: 'v1', kind: 'ConfigMap' }, /kind: "ConfigMap" is not EndpointPickerConfig/],
  ['an unknown section', { ...head, scheduling: {} }, /scheduling/],
  ['an empty file', null, /object/],
]
for (const [what, document, message] of faulty) {
  test(`${what} is refused with its place`, () => {
    assert.throws(
      () => translateEndpointPickerConfig(document, 'epp.yaml'),
      (error) => error instanceof RouterError && error.code === 'CONFIG_INVALID' && message.test(error.message),
    )
  })
}

test('a pool takes its profile from a file that lies beside the config', async () => {
  const config = loadConfig({ file: fixture('router') })
  await checkPolicies(config)
  const choice = profileChoice(config, 'my-model')
  assert.ok(typeof choice === 'object')
  assert.equal(choice.scorers?.length, 4)
  assert.ok(policyNotes(config).some((note) => note.includes('precise.yaml: plugins[0]: "token-producer" is handled')))
})

test('a file that is not there is a fault of the config that names it', () => {
  assert.throws(
    () => loadConfig({ file: fixture('router-lost') }),
    (error) => error instanceof RouterError && error.code === 'CONFIG_UNREADABLE' && /absent\.yaml/.test(error.message),
  )
})
