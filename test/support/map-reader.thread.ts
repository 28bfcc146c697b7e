/** A thread that matches one prompt over and over through a MapReader, and notes what must never be seen. */
import { workerData } from 'node:worker_threads'
import type { MapHandle } from '../../src/map/layout.ts'
import { createMapReader } from '../../src/map/reader.ts'
import { emptyMatch } from './kv-tree.ts'

/** Places in the shared control words. */
export const control = {
  state: 0,
  reads: 1,
  stop: 2,
  hits: 3,
  steadyHits: 4,
  afterClear: 5,
  tooMany: 6,
  words: 8,
} as const

export interface ReaderTask {
  readonly handle: MapHandle
  readonly words: Int32Array
  readonly keys: Uint32Array
  /** Blocks of the prompt that worker 1 holds all the time. */
  readonly steadyBlocks: number
}

if (workerData !== null) {
  const { handle, words, keys, steadyBlocks } = workerData as ReaderTask
  const reader = createMapReader(handle)
  const out = emptyMatch(4)
  while (Atomics.load(words, control.stop) === 0) {
    const before = Atomics.load(words, control.state)
    reader.match([{ blockSize: 16, keys }], out)
    const after = Atomics.load(words, control.state)
    // In an even state worker 0 is cleared, and `clear` has returned.
    if (before === after && before % 2 === 0 && out.gpu[0]! > 0) Atomics.add(words, control.afterClear, 1)
    if (out.gpu[1]! > steadyBlocks || out.gpu[2]! > 0 || out.gpu[3]! > 0) Atomics.add(words, control.tooMany, 1)
    if (out.gpu[0]! > 0) Atomics.add(words, control.hits, 1)
    if (out.gpu[1]! === steadyBlocks) Atomics.add(words, control.steadyHits, 1)
    Atomics.add(words, control.reads, 1)
    Atomics.notify(words, control.reads)
  }
}
