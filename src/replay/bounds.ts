import { ReuseCurve } from '../sizing/reuse-curve.ts'
import type { ReplayRow } from './replay.ts'
import { blockCount, blockIds, sharedRuns, type Trace } from './traces/trace.ts'

/** Hit ratios, in tokens, that no routing over several caches can pass by much: what a single cache would have had. */
export interface HitBounds {
  /** One cache as large as all together, which drops what was used longest ago. */
  readonly pooled: number
  /** One that never drops anything. */
  readonly infinite: number
}

/** Of a run, in the order in which its requests were sent. */
export function hitBounds(rows: readonly ReplayRow[], trace: Trace, capacityTokens: number): HitBounds {
  const sent = rows.toSorted((a, b) => a.sentMs - b.sentMs)
  const perCopy = 1 + sent.reduce((most, { visit }) => Math.max(most, greatestId(visit.session.requests)), 0)
  let promptTokens = 0
  let promptBlocks = 0
  let answeredBlocks = 0
  // A prompt, then the same with the blocks of its answer, which is in the cache as well.
  const uses = sent.flatMap((row) => {
    const prompt = idsOf(row, row.turn, perCopy)
    promptTokens += row.promptTokens
    promptBlocks += prompt.length
    const answered = answeredIds(row, perCopy, trace.blockTokens)
    if (answered === null) return [prompt]
    answeredBlocks += prompt.length
    return [prompt, answered]
  })
  const curve = ReuseCurve.of(uses, (use) => use)
  const ratio = (capacityBlocks: number): number => {
    const hits = curve.hitRatio(capacityBlocks) * curve.blocks - answeredBlocks
    return promptBlocks === 0 ? 0 : (Math.max(0, hits) * trace.blockTokens) / promptTokens
  }
  return { pooled: ratio(Math.floor(capacityTokens / trace.blockTokens)), infinite: ratio(Infinity) }
}

function idsOf({ visit }: ReplayRow, turn: number, perCopy: number): Uint32Array {
  const ids = blockIds(visit.session.requests[turn]?.blocks ?? new Uint32Array(0))
  for (let at = visit.session.commonBlocks; at < ids.length; at++) ids[at] = (ids[at] as number) + visit.copy * perCopy
  return ids
}

/** The blocks of prompt and answer where the next prompt goes on from them; null where it does not, or no block was filled. */
function answeredIds(row: ReplayRow, perCopy: number, blockTokens: number): Uint32Array | null {
  const own = row.visit.session.requests[row.turn]?.blocks
  const next = row.visit.session.requests[row.turn + 1]?.blocks
  if (own === undefined || next === undefined || sharedRuns(own, next) < blockCount(own)) return null
  const filled = Math.floor((row.promptTokens + row.outputTokens - 1) / blockTokens)
  return filled <= blockCount(own) ? null : idsOf(row, row.turn + 1, perCopy).subarray(0, filled)
}

function greatestId(requests: ReplayRow['visit']['session']['requests']): number {
  let greatest = 0
  for (const { blocks } of requests) {
    for (let at = 0; at < blocks.length; at += 2)
      greatest = Math.max(greatest, (blocks[at] as number) + (blocks[at + 1] as number) - 1)
  }
  return greatest
}
