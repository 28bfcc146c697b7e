import assert from 'node:assert/strict'
import { test } from 'node:test'
import Type from 'typebox'
import { checkPolicy, type Rule } from '../../src/routing/contract/contract.ts'
import { plugins } from '../../src/routing/catalogue.ts'
import { definePolicy, type PolicyPlugin, type Scorer } from '../../src/routing/policy.ts'

/** What a plugin needs that has no default. */
const parameters: Readonly<Record<string, Record<string, unknown>>> = {
  label: { label: 'zone', value: 'a' },
  'label-preference': { label: 'zone', value: 'a' },
  'by-label': { label: 'zone', validValues: ['a'] },
  'utilization-filter': { conditions: [{ metric: 'waiting-queue', maxValue: 3 }] },
  'header-label-affinity-scorer': { headerName: 'x-zone', labelKey: 'zone' },
}

for (const plugin of plugins) {
  test(`the ${plugin.kind} ${plugin.type} keeps the contract`, () => {
    assert.deepEqual(checkPolicy(plugin, { parameters: parameters[plugin.type] ?? {}, slowMs: 5 }), [])
  })
}

const scorer = (score: Scorer['score'], hooks: Partial<Scorer> = {}): PolicyPlugin =>
  definePolicy({
    kind: 'scorer',
    type: 'bad',
    description: 'Breaks a rule.',
    parameters: Type.Object({}),
    create: () => ({ score, ...hooks }),
  })

const breaking: readonly (readonly [Rule, PolicyPlugin])[] = [
  [
    'throws',
    scorer((_request, fleet) => {
      if (fleet.count === 1) throw new Error('too few')
    }),
  ],
  [
    'throws',
    scorer(() => undefined, {
      onFinished() {
        throw new Error('never heard of it')
      },
    }),
  ],
  [
    'writes-inputs',
    scorer((_request, fleet) => {
      fleet.requests[0] = 0
      fleet.prefillTokens[fleet.count - 1] = -1
    }),
  ],
  ['out-of-bounds', scorer((_request, fleet, _match, out) => void out.fill(1, 0, fleet.count + 1))],
  ['not-a-number', scorer((_request, fleet, _match, out) => void (out[0] = fleet.kvUsage[0] ?? 0))],
  ['not-repeatable', scorer((_request, _fleet, _match, out) => void (out[0] = Math.random()))],
  ['promise', scorer(() => Promise.resolve() as never)],
  [
    'slow',
    scorer((_request, fleet) => {
      const endMs = performance.now() + (fleet.count === 256 ? 3 : 0)
      while (performance.now() < endMs);
    }),
  ],
  [
    'parameters',
    definePolicy({
      kind: 'picker',
      type: 'bad',
      description: 'Has no default.',
      parameters: Type.Object({ needed: Type.String() }),
      create: () => ({ pick: () => 0 }),
    }),
  ],
  [
    'picks-nobody',
    definePolicy({
      kind: 'picker',
      type: 'bad',
      description: 'Does not look at the mask.',
      parameters: Type.Object({}),
      create: () => ({ pick: (_request, fleet) => fleet.count - 1 }),
    }),
  ],
  [
    'mask',
    definePolicy({
      kind: 'filter',
      type: 'bad',
      description: 'Writes scores.',
      parameters: Type.Object({}),
      create: () => ({ filter: (_request, _fleet, _match, keep) => void (keep[0] = 7) }),
    }),
  ],
  [
    'throws',
    definePolicy({
      kind: 'fallback',
      type: 'bad',
      reason: 'bad',
      description: 'Needs two workers.',
      parameters: Type.Object({}),
      create: () => ({
        applies: (_request, { count }) => {
          if (count < 2) throw new Error('too few')
          return false
        },
      }),
    }),
  ],
]

for (const [index, [rule, plugin]] of breaking.entries()) {
  test(`a ${plugin.kind} that breaks the rule ${rule} is found (${index + 1})`, () => {
    assert.deepEqual(
      checkPolicy(plugin, { decisions: 60 }).map((finding) => finding.rule),
      [rule],
    )
  })
}
