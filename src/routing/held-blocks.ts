import type { StoreRef, Worker } from '../workers/worker.ts'

/** The prefix match of every worker and store by slot, as the map fills it. */
export type BlocksBySlot = Readonly<Record<'gpu' | 'host' | 'disk' | 'shared', Uint32Array>>

/** Leading blocks of a prompt that a worker finds, by tier, in its own block size (decision 4). */
export interface HeldBlocks {
  gpu: number
  host: number
  disk: number
  shared: number
  /** Without what was only looked up somewhere. */
  toldRun: number
}

/**
 * Joins what the map says of a worker's own blocks with what the stores beside it hold of the prompt in chunks of their
 * own size. Such a store is asked for whole chunks from the prompt's beginning on, as its engine asks it, and adds what
 * reaches beyond the worker's own run.
 *
 *     worker     ████████░░░░░░░░░░░░░░░░    run of 8 blocks
 *     chunks     [══════][══════]            its host store: 2 chunks of 8 blocks, so 8 blocks more
 *     shared     [══════════════════════]    1 chunk of 24 blocks: another 8
 */
export function heldBlocks(
  worker: Pick<Worker, 'slot' | 'blockSize' | 'chunks' | 'lookedUp'>,
  stores: readonly StoreRef[],
  match: BlocksBySlot,
  out: HeldBlocks,
): HeldBlocks {
  const { slot, blockSize, chunks, lookedUp } = worker
  out.gpu = match.gpu[slot] as number
  out.host = match.host[slot] as number
  out.disk = match.disk[slot] as number
  out.shared = match.shared[slot] as number
  out.toldRun = out.gpu + out.host + out.disk
  if (blockSize === null || (chunks === null && lookedUp === null && stores.length === 0)) return out
  let reach = out.toldRun + out.shared
  if (chunks !== null) {
    reach = Math.max(reach, addChunks(chunks, blockSize, match, out))
    out.toldRun = out.gpu + out.host + out.disk
  }
  if (lookedUp !== null) reach = Math.max(reach, addChunks(lookedUp, blockSize, match, out))
  for (const store of stores) reach = Math.max(reach, blocksIn(match.shared[store.slot] as number, store, blockSize))
  out.shared = Math.max(0, reach - out.gpu - out.host - out.disk)
  return out
}

/** Adds to a worker's run what a store beside it reaches beyond; answers how far the shared store goes on from there. */
function addChunks(store: StoreRef, blockSize: number, match: BlocksBySlot, out: HeldBlocks): number {
  const disk = match.disk[store.slot] as number
  const own = (match.gpu[store.slot] as number) + (match.host[store.slot] as number) + disk
  const further = Math.max(0, blocksIn(own, store, blockSize) - out.gpu - out.host - out.disk)
  // Where the chunks are of both kinds the slower tier is taken to come last.
  const onDisk = Math.min(further, blocksIn(disk, store, blockSize))
  out.host += further - onDisk
  out.disk += onDisk
  return blocksIn(own + (match.shared[store.slot] as number), store, blockSize)
}

/** Whole blocks of the worker in so many chunks of a store. */
function blocksIn(chunks: number, store: StoreRef, blockSize: number): number {
  return Math.floor((chunks * store.blockSize) / blockSize)
}
