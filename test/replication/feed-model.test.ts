import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { createKeyMaker, type KeyMaker } from '../../src/kv/keys.ts'
import { seededRandom } from '../support/random.ts'
import { World, type Snapshot, type WorldOptions } from '../support/replica-world.ts'

let keys: KeyMaker
before(async () => {
  keys = await createKeyMaker(Buffer.alloc(32, 7))
})

const schedules = Number(process.env['SCHEDULES'] ?? 1000)
const firstSeed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 1e9))

/** Things that happen, and how often. */
const happenings: readonly (readonly [weight: number, run: (world: World, kept: Snapshot[]) => void])[] = [
  [60, (world) => world.storeOne()],
  [40, (world) => world.removeOne()],
  [4, (world) => world.restartEngine()],
  [4, (world) => pick(world, (replica) => (replica.cut = true))],
  [6, (world) => pick(world, (replica) => (replica.cut = false))],
  [3, (world) => (world.redis.frozen = true)],
  [5, (world) => world.redis.thaw()],
  [2, (world) => world.redis.flush()],
  [2, (world) => world.redis.entries.splice(0, Math.floor(world.redis.entries.length / 2), ...fill(world))],
  [
    4,
    (world, kept) =>
      pick(world, (replica) => {
        world.crash(replica)
        const snapshot = world.chance(0.5) ? kept.at(-1) : undefined
        world.after(world.between(1, 3000), () => world.addReplica(snapshot))
      }),
  ],
  [4, (world, kept) => pick(world, (replica) => kept.push(replica.snapshot()))],
]

/** Entries that were trimmed keep their places: a reader's position is an id, not an index. */
function fill({ redis }: World): Buffer[] {
  return Array.from({ length: Math.floor(redis.entries.length / 2) }, () => Buffer.alloc(0))
}

function pick(world: World, act: (replica: World['replicas'][number]) => void): void {
  const replica = world.replicas[world.between(0, world.replicas.length - 1)]
  if (replica !== undefined && world.replicas.length > 1) act(replica)
}

function happen(world: World, kept: Snapshot[]): void {
  const all = happenings.reduce((sum, [weight]) => sum + weight, 0)
  let left = world.options.random() * all
  for (const [weight, run] of happenings) {
    left -= weight
    if (left > 0) continue
    run(world, kept)
    return
  }
}

/** Everything is well again, and stays so for longer than any time limit. */
function settle(world: World): void {
  for (const replica of world.replicas) replica.cut = false
  world.redis.thaw()
  world.lossless = true
  world.advance(40_000)
  world.storeOne()
  world.advance(5_000)
}

function play(seed: number, options: Omit<WorldOptions, 'random' | 'keys'>): World {
  const random = seededRandom(seed)
  const world = new World({ ...options, random, keys })
  const kept: Snapshot[] = []
  const steps = world.between(20, 150)
  for (let step = 0; step < steps; step++) {
    happen(world, kept)
    world.advance(world.chance(0.1) ? world.between(100, 4000) : world.between(0, 20))
  }
  settle(world)
  return world
}

function check(
  name: string,
  options: Omit<WorldOptions, 'random' | 'keys'>,
  verify: (world: World, at: string) => void,
): void {
  test(`${name} (seeds from ${firstSeed}, ${schedules} of them)`, () => {
    for (let seed = firstSeed; seed < firstSeed + schedules; seed++) {
      const at = `SEED=${seed} SCHEDULES=1`
      const world = play(seed, options)
      verify(world, at)
      assert.equal(world.replicas.filter(({ owns }) => owns).length, 1, `one replica has the lease: ${at}`)
      // The lease's holder hears the engine, and nobody else has to.
      assert.deepEqual(
        world.replicas.filter(({ feed }) => feed.mode === 'listening').map(({ owns }) => owns),
        [true],
        at,
      )
      drainEngine(world)
      for (const replica of world.replicas) assert.deepEqual(replica.blocks(), [], `nothing comes back: ${at}`)
    }
  })
}

/** The engine removes as often as it stored: a count that is wrong anywhere leaves a block behind. */
function drainEngine(world: World): void {
  while (world.engine.held.size > 0) world.removeOne()
  world.advance(15_000)
}

check(
  'after crashes, partitions, freezes and late writes every replica’s map is the engine’s cache',
  { replicas: 3, replayBatches: 10_000, lossShare: 0.02 },
  (world, at) => {
    for (const replica of world.replicas)
      assert.deepEqual(world.differences(replica), { stale: [], missing: [] }, `replica ${replica.id}: ${at}`)
  },
)

check(
  'with a short replay buffer no replica credits a block that was removed',
  { replicas: 3, replayBatches: 8, lossShare: 0.02 },
  (world, at) => {
    for (const replica of world.replicas)
      assert.deepEqual(world.differences(replica).stale, [], `replica ${replica.id}: ${at}`)
  },
)

check(
  'without a replay endpoint no replica credits a block that was removed',
  { replicas: 3, replayBatches: null, lossShare: 0.02 },
  (world, at) => {
    for (const replica of world.replicas)
      assert.deepEqual(world.differences(replica).stale, [], `replica ${replica.id}: ${at}`)
  },
)

check(
  'where only the lease’s holder hears the engine no replica credits a block that was removed',
  { replicas: 3, replayBatches: null, lossShare: 0.02, isPolled: true },
  (world, at) => {
    for (const replica of world.replicas)
      assert.deepEqual(world.differences(replica).stale, [], `replica ${replica.id}: ${at}`)
  },
)
