import assert from 'node:assert/strict'
import { test } from 'node:test'
import { highestLoad } from '../../src/replay/search.ts'
import { distribution, estimate, pairedDifference } from '../../src/replay/statistics.ts'

test('a confidence interval is Student’s', () => {
  const { mean, halfWidth } = estimate([9, 10, 11, 12, 8])
  assert.equal(mean, 10)
  // s = √2.5, t(4) = 2.776
  assert.ok(Math.abs(halfWidth - 2.776 * Math.sqrt(2.5 / 5)) < 1e-12)
  assert.equal(estimate([3]).halfWidth, Infinity)
})

test('what two have of a seed in common falls out of their difference', () => {
  const { mean, halfWidth } = pairedDifference([101, 205, 309], [100, 204, 308])
  assert.deepEqual([mean, halfWidth], [1, 0])
})

test('percentiles are those of the nearest rank', () => {
  const values = Array.from({ length: 100 }, (_, i) => 100 - i)
  assert.deepEqual(distribution(values), { mean: 50.5, p50: 50, p90: 90, p99: 99 })
  assert.deepEqual(distribution([]), { mean: 0, p50: 0, p90: 0, p99: 0 })
})

test('the highest load that keeps the goal is found from below and from above', async () => {
  for (const limit of [1, 2, 7, 63, 64, 65, 1_000]) {
    for (const start of [1, 64, 5_000]) {
      const asked: number[] = []
      const inSlo = (load: number): Promise<number> => {
        asked.push(load)
        return Promise.resolve(load <= limit ? 0.97 : 0.9)
      }
      const found = await highestLoad({ inSlo, goal: 0.95, start, whole: true, precision: 0, most: 10_000 })
      assert.equal(found, limit)
      assert.ok(asked.length < 30)
    }
  }
})

test('of parts of a load the highest is found as precisely as asked, and 0 where none keeps the goal', async () => {
  const search = { goal: 0.95, start: 1, whole: false, precision: 0.01, most: 100 }
  const found = await highestLoad({ ...search, inSlo: (load) => Promise.resolve(load <= 2.345 ? 1 : 0) })
  assert.ok(found <= 2.345 && found > 2.345 * 0.98, String(found))
  assert.equal(await highestLoad({ ...search, inSlo: () => Promise.resolve(0) }), 0)
  assert.equal(await highestLoad({ ...search, inSlo: () => Promise.resolve(1) }), 100)
})
