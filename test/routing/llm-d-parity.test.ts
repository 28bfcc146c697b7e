import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { ownScores } from '../parity/llm-d/own-scores.ts'
import { pluginRuns, type StatesShape } from '../parity/llm-d/states.ts'

interface Recorded extends StatesShape {
  readonly commit: string
  readonly statesDigest: string
  readonly answers: readonly { readonly kind: string; readonly type: string; readonly rows: readonly number[][] }[]
}

const fixture = new URL('../fixtures/parity/llm-d.json', import.meta.url)
const recorded = JSON.parse(readFileSync(fixture, 'utf8')) as Recorded
const runs = pluginRuns(recorded)

test('the states are those that llm-d’s code was asked about', () => {
  const digest = createHash('sha256').update(JSON.stringify(runs)).digest('hex').slice(0, 16)
  assert.equal(digest, recorded.statesDigest)
})

for (const [index, run] of runs.entries()) {
  const answers = recorded.answers[index]
  test(`the ${run.kind} ${run.type} answers as llm-d’s own: ${JSON.stringify(run.parameters)}`, () => {
    assert.deepEqual([answers?.kind, answers?.type], [run.kind, run.type])
    for (const [step, row] of ownScores(run).entries())
      assert.deepEqual(
        row.map((score) => Math.round(score * 1e6) / 1e6),
        answers?.rows[step],
        `request ${step}`,
      )
  })
}
