import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runScenario, scenarios } from '../reliability/run.ts'

// Each is a router and engines in processes of their own, under a fault of docs/reliability.md at a reduced size. Those
// whose promise is a time that a busy machine cannot keep are measured by `npm run bench faults` only.
for (const scenario of scenarios.filter(({ quick }) => quick)) {
  test(`${scenario.fault}: ${scenario.promise}`, { timeout: 60_000 }, async (t) => {
    const { measured, holds } = await runScenario(scenario, false)
    t.diagnostic(measured)
    assert.ok(holds, measured)
  })
}
