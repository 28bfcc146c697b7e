/** Random logs of events, as plans that a test carries out on whatever maps it compares. */
import fc from 'fast-check'
import type { KvEvent } from '../../src/kv/batch.ts'
import { KvTree } from './kv-tree.ts'

export const workers = 4
/** Worker 3 has another block size, and with it another tree. */
export const blockSizeOf = (worker: number): number => (worker === 3 ? 32 : 16)
export const treeBlocks = 28

export type Step =
  | { kind: 'batch'; worker: number; events: EventPlan[]; again: boolean }
  | { kind: 'assume'; worker: number; events: EventPlan[] }
  | { kind: 'retract'; worker: number }
  | { kind: 'clear'; worker: number }
  | { kind: 'restart'; worker: number }
  | { kind: 'leave'; worker: number }
  | { kind: 'join'; worker: number }
  | { kind: 'stale'; worker: number }
  | { kind: 'adopt'; worker: number }
  | { kind: 'sweep'; steps: number }

export interface EventPlan {
  kind: 'store' | 'present' | 'remove' | 'clear'
  block: number
  length: number
  tier: number
  group: number
  alternative: number
  /** Of a removal. */
  everyTier: boolean
}

export const eventPlan: fc.Arbitrary<EventPlan> = fc.record({
  kind: fc.oneof(
    { weight: 12, arbitrary: fc.constant('store' as const) },
    { weight: 3, arbitrary: fc.constant('present' as const) },
    { weight: 7, arbitrary: fc.constant('remove' as const) },
    { weight: 1, arbitrary: fc.constant('clear' as const) },
  ),
  block: fc.nat(treeBlocks - 1),
  length: fc.integer({ min: 1, max: 8 }),
  tier: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 3, arbitrary: fc.integer({ min: 1, max: 3 }) }),
  group: fc.oneof({ weight: 30, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.constant(5) }),
  alternative: fc.oneof({ weight: 12, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.constant(1) }),
  everyTier: fc.boolean(),
})

const worker = fc.nat(workers - 1)
export const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 30,
    arbitrary: fc.record({
      kind: fc.constant('batch' as const),
      worker,
      events: fc.array(eventPlan, { minLength: 1, maxLength: 4 }),
      again: fc.boolean(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('assume' as const),
      // Mostly one worker, so that it is left as it is for a while.
      worker: fc.oneof(fc.constant(1), worker),
      events: fc.array(eventPlan, { minLength: 1, maxLength: 4 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.oneof(
      ...(['retract', 'clear', 'restart', 'leave', 'join', 'stale', 'adopt'] as const).map((kind) =>
        fc.record({ kind: fc.constant(kind), worker }),
      ),
    ),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('sweep' as const), steps: fc.integer({ min: 1, max: 6 }) }) },
)

export const treeShape = fc.array(fc.nat(1000), { minLength: treeBlocks, maxLength: treeBlocks })

/** Both trees have the same shape: blocks hang from a random earlier one, mostly the last. */
export function growTree(seed: number, shape: readonly number[]): KvTree {
  const tree = new KvTree(seed)
  shape.forEach((draw, block) => tree.grow(draw % 3 === 0 ? (draw % (block + 1)) - 1 : block - 1))
  return tree
}

/** The last `length` blocks of the path to a block, as one event. */
export function eventOf(tree: KvTree, plan: EventPlan): KvEvent {
  if (plan.kind === 'clear') return { kind: 'clear' }
  const run = tree.pathTo(plan.block).slice(-plan.length)
  if (plan.kind === 'store') return tree.store(run, plan)
  if (plan.kind === 'present') return tree.present(run, plan)
  return tree.remove(run, plan.everyTier ? { ...plan, tier: null } : plan)
}

/** The same for blocks that are known by their keys. */
export function assumptionOf(tree: KvTree, plan: EventPlan): KvEvent {
  if (plan.kind === 'clear') return { kind: 'clear' }
  const run = tree.pathTo(plan.block).slice(-plan.length)
  const above = tree.parents[run[0]!]!
  if (plan.kind === 'remove') return { kind: 'remove', tier: plan.tier, group: 0, engineHashes: tree.keysOf(run) }
  return { kind: 'hold', tier: plan.tier, keys: tree.keysOf(run), parent: above < 0 ? null : tree.keys[above]! }
}
