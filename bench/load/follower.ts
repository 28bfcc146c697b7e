/**
 * The replica that hears of engines only through the log. Argument: the URL of Redis. Told a number of batches it answers
 * `ready`, and when it has applied as many: when that was, and how old each was by its timestamp.
 */
import type { WorkerSlot } from '../../src/kv/batch.ts'
import { until } from '../../test/support/until.ts'
import { machineMs, openReplica, workerCount } from './replica.ts'

/** What it answers once it has applied the batches. */
export interface Applied {
  readonly atMs: number
  readonly ages: Float64Array
  /** Blocks in its map. */
  readonly blocks: number
}

const [, , url = ''] = process.argv
let ages = new Float64Array(0)
let count = 0

const { map, replication } = await openReplica({
  url,
  listen: () => {
    throw new Error('the log was left for the engine')
  },
  applied: (timestamp) => {
    const atMs = machineMs()
    ages[count++] = atMs - timestamp
    if (count !== ages.length) return
    const slots = Array.from({ length: workerCount }, (_, slot) => slot)
    const blocks = slots.reduce((sum, slot) => sum + map.workerBlocks(slot as WorkerSlot).gpu, 0)
    process.send?.({ atMs, ages, blocks } satisfies Applied)
  },
})
process.on('message', (batches: number) => {
  ages = new Float64Array(batches)
  count = 0
  process.send?.('ready')
})
process.on('disconnect', () => process.exit())
await until(() => replication.plane.isSettled, 'the log is followed')
process.send?.('ready')
