import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RetryBudget } from '../../src/proxy/retry-budget.ts'

test('retries under way are a share of the requests under way, and never fewer than the minimum', () => {
  const budget = new RetryBudget({ attempts: 1, budgetShare: 0.2, minimum: 3 })
  const taken = (inFlight: number): number => {
    let count = 0
    while (budget.tryTake(inFlight)) count++
    for (let i = 0; i < count; i++) budget.release()
    return count
  }
  assert.equal(taken(1), 3)
  assert.equal(taken(15), 3)
  assert.equal(taken(100), 20)
  assert.equal(taken(0), 3, 'what was released can be taken again')
})
