import type { BreakEven } from './break-even.ts'
import { concurrencyLimit, kvCapacity, vllmLogLine, type KvCapacity } from './capacity.ts'
import { checkParallelism, distantTokenBytesPerRank, tokenBytesOfModel, tokenBytesPerRank } from './kv-bytes.ts'
import { blocksPerSequence, kvLayout, type KvLayout, type SequenceOptions } from './kv-groups.ts'
import { assumedInFlightTokens, kvRoom, type KvRoom, type MemoryUse } from './kv-room.ts'
import { loadWorths, prefillRate } from './load-paths.ts'
import type { SizingRequest } from './sizing-request.ts'
import { tierReach, tierSizes, type TierReach, type TierSizes } from './tiers.ts'

export interface ContextLimit {
  readonly tokens: number
  readonly blocks: number
  /** Requests of this length at which one worker's GPUs are full. */
  readonly workerRequests: number
  readonly fleetRequests: number
}

export interface Sizing {
  readonly tokenBytesPerRank: number
  /** The same of a token that lies before all windows. */
  readonly distantTokenBytesPerRank: number
  readonly tokenBytesOfModel: number
  readonly layout: KvLayout
  /** For which windows keep room. */
  readonly inFlightTokens: number
  /** Null where the room for the KV cache was given. */
  readonly memory: MemoryUse | null
  readonly kvBytesPerGpu: number
  readonly capacity: KvCapacity
  readonly fleetTokens: number
  readonly logLine: string
  readonly contexts: readonly ContextLimit[]
  /** Time to read all weights and a full cache once, which every token of a full worker waits for; null without a rate. */
  readonly fullCacheStepMs: number | null
  readonly prefillTokensPerSecond: number | null
  readonly breakEven: readonly BreakEven[]
  readonly tierSizes: readonly TierSizes[]
  readonly tierReach: readonly TierReach[]
  /** What is no exact figure, and why: a sentence each. */
  readonly estimates: readonly string[]
  readonly notes: readonly string[]
}

/** Everything that `warmroute size` tells, from a model, a GPU and a workload. Throws CONFIG_INVALID where they do not fit together. */
export function sizeModel(request: SizingRequest): Sizing {
  const { dtype, maxTokens, model, parallelism, workers } = request
  checkParallelism(model, parallelism)
  const estimates: string[] = []
  const layout = kvLayout(model, request)
  const sequences: SequenceOptions = {
    inFlightTokens: request.inFlightTokens ?? assumedInFlightTokens(request, layout, estimates),
    decodeContext: parallelism.decodeContext,
    prefixCaching: request.prefixCaching,
  }
  const room = kvRoom(request, layout, estimates)
  const capacity = kvCapacity(layout, room.blocks, maxTokens, sequences)
  const prefillTokensPerSecond = prefillRate(request, estimates)
  return {
    tokenBytesPerRank: tokenBytesPerRank(model, dtype, parallelism),
    distantTokenBytesPerRank: distantTokenBytesPerRank(model, dtype, parallelism),
    tokenBytesOfModel: tokenBytesOfModel(model, dtype),
    ...{ layout, capacity, prefillTokensPerSecond, estimates },
    inFlightTokens: sequences.inFlightTokens,
    memory: room.memory,
    kvBytesPerGpu: Math.max(...layout.blockBytes) * room.blocks,
    fleetTokens: capacity.tokens * workers,
    logLine: vllmLogLine(capacity, maxTokens),
    contexts: contextLimits(request, layout, capacity, sequences),
    fullCacheStepMs: fullCacheStep(request, layout, room, estimates),
    breakEven: prefillTokensPerSecond === null ? [] : loadWorths(request, prefillTokensPerSecond, estimates),
    ...workloadSizes(request, capacity, estimates),
    notes: notes(request, layout, capacity),
  }
}

function contextLimits(
  { contextTokens, workers }: SizingRequest,
  layout: KvLayout,
  { usableBlocks }: KvCapacity,
  sequences: SequenceOptions,
): ContextLimit[] {
  return contextTokens.map((tokens) => {
    const workerRequests = concurrencyLimit(layout, usableBlocks, tokens, sequences)
    const blocks = blocksPerSequence(layout, tokens, sequences)
    return { tokens, blocks, workerRequests, fleetRequests: workerRequests * workers }
  })
}

function notes({ dtype, maxTokens, model }: SizingRequest, layout: KvLayout, capacity: KvCapacity): string[] {
  const found = [...model.notes, ...layout.notes]
  if (dtype === 'fp8' && model.layers.some((layer) => layer.kind === 'latent' && layer.indexBytes > 0))
    found.push(
      'for sparse latent attention some engines take fp8 as their packed format of 656 bytes a token and layer: then say --kv-cache-dtype fp8_ds_mla',
    )
  if (capacity.usableBlocks < capacity.blocksPerSequence)
    found.push(
      `not even one sequence of ${maxTokens} tokens has room: an engine refuses to start; give a smaller --max-model-len`,
    )
  return found
}

function fullCacheStep(
  { gpu }: SizingRequest,
  { blockBytes }: KvLayout,
  { blocks, stageWeights }: KvRoom,
  estimates: string[],
): number | null {
  const rate = gpu?.memoryBytesPerSecond
  if (rate === undefined || stageWeights === null) return null
  estimates.push(
    'time of a decode step: all weights and all of the cache read once at the peak rate of the GPU’s memory',
  )
  const bytes = blockBytes.reduce((sum, stage, index) => sum + stage * (blocks - 1) + (stageWeights[index] ?? 0), 0)
  return (bytes / rate) * 1000
}

function workloadSizes(
  { dtype, model, workers, workload }: SizingRequest,
  capacity: KvCapacity,
  estimates: string[],
): Pick<Sizing, 'tierSizes' | 'tierReach'> {
  if (workload === undefined) return { tierSizes: [], tierReach: [] }
  const { blockTokens, curve, diskBytes, hitRatios, hostBytes, sharedBytes } = workload
  const tokenBytes = tokenBytesOfModel(model, dtype)
  const gpuTokens = capacity.tokens
  const fleet = { workers, gpuTokens, tokenBytes, blockTokens, hostBytes }
  estimates.push(
    'tier sizes are the least that can do: each block is kept once in the fleet, and the one that was used longest ago is dropped first',
  )
  if (workload.users !== undefined)
    estimates.push(
      `${workload.users} sessions run at once, since the workload gives them no times of their own (--users); more of them need larger caches`,
    )
  if (model.layers.some(({ kind }) => kind === 'sliding' || kind === 'linear'))
    estimates.push(
      'tiers outside the GPU are sized with every layer that keeps tokens counted for every token; stores that drop what lies before a window need less, states of linear attention come on top',
    )
  const tiers = [
    { tier: 'host', fleetBytes: (hostBytes ?? 0) * workers },
    { tier: 'disk', fleetBytes: (diskBytes ?? 0) * workers },
    { tier: 'shared', fleetBytes: sharedBytes ?? 0 },
  ].filter(({ fleetBytes }) => fleetBytes > 0)
  return { tierSizes: tierSizes(curve, fleet, hitRatios), tierReach: tierReach(curve, fleet, tiers) }
}
