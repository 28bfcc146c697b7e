import { RouterError } from '../errors.ts'
import {
  assumedPrefillUtilization,
  breakEven,
  estimatedPrefillTokensPerSecond,
  type BreakEven,
  type LoadPath,
} from './break-even.ts'
import {
  blocksInMemory,
  concurrencyLimit,
  kvCapacity,
  kvMemory,
  stageWeightBytes,
  vllmLogLine,
  type KvCapacity,
} from './capacity.ts'
import type { Gpu } from './gpus.ts'
import {
  checkParallelism,
  distantTokenBytesPerRank,
  tokenBytesOfModel,
  tokenBytesPerRank,
  type KvCacheDtype,
  type Parallelism,
} from './kv-bytes.ts'
import { blocksPerSequence, kvLayout, type KvLayout, type SequenceOptions } from './kv-groups.ts'
import type { ModelConfig } from './model-config.ts'
import type { ReuseCurve } from './reuse-curve.ts'
import { tierReach, tierSizes, type TierReach, type TierSizes } from './tiers.ts'

export interface SizingRequest {
  readonly model: ModelConfig
  /** May be left out where `kvMemoryBytes` or `blocks` says how much room there is. */
  readonly gpu?: Partial<Gpu>
  readonly workers: number
  readonly parallelism: Parallelism
  readonly dtype: KvCacheDtype
  readonly blockTokens: number
  /** Of one sequence. */
  readonly maxTokens: number
  /** Share of a GPU's memory that the engine may use. */
  readonly utilization: number
  readonly prefixCaching: boolean
  /** Tokens that are scheduled and not settled; default by the GPU's size. */
  readonly inFlightTokens?: number
  /** Of the whole model; default by the config's shapes. */
  readonly weightBytes?: number
  /** What else each GPU holds: activations, graphs, buffers of communication; default assumed. */
  readonly otherBytes?: number
  /** For the KV cache on each GPU, as the engine's log tells it. */
  readonly kvMemoryBytes?: number
  /** As the engine's log or metrics tell them. */
  readonly blocks?: number
  readonly contextTokens: readonly number[]
  readonly workload?: Workload
  /** Of one worker; default estimated. */
  readonly prefillTokensPerSecond?: number
  readonly prefillUtilization?: number
  /** Rates of the paths from which KV blocks are loaded; default assumed. */
  readonly bytesPerSecond?: { readonly host?: number; readonly disk?: number; readonly shared?: number }
}

export interface Workload {
  readonly name: string
  readonly curve: ReuseCurve
  /** Tokens in a block of the curve. */
  readonly blockTokens: number
  readonly hitRatios: readonly number[]
  /** Sessions at once, where the workload gives them no times of their own. */
  readonly users?: number
  /** Tiers beyond the GPUs: host and disk for each worker, one shared store. */
  readonly hostBytes?: number
  readonly diskBytes?: number
  readonly sharedBytes?: number
}

export interface ContextLimit {
  readonly tokens: number
  readonly blocks: number
  /** Requests of this length at which one worker's GPUs are full. */
  readonly workerRequests: number
  readonly fleetRequests: number
}

export interface MemoryUse {
  readonly gpuBytes: number
  readonly utilization: number
  /** On the GPU that has least room, by stage of the pipeline. */
  readonly weightBytes: number
  readonly otherBytes: number
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

const gib = 2 ** 30

const sparseFp8Note =
  'for sparse latent attention some engines take fp8 as their packed format of 656 bytes a token and layer: then say --kv-cache-dtype fp8_ds_mla'

/** Everything that `warmroute size` tells, from a model, a GPU and a workload. Throws CONFIG_INVALID where they do not fit together. */
export function sizeModel(request: SizingRequest): Sizing {
  const { dtype, maxTokens, model, parallelism, workers } = request
  checkParallelism(model, parallelism)
  const isSparseFp8 = dtype === 'fp8' && model.layers.some((layer) => layer.kind === 'latent' && layer.indexBytes > 0)
  const estimates: string[] = []
  const layout = kvLayout(model, request)
  const sequences: SequenceOptions = {
    inFlightTokens: request.inFlightTokens ?? assumedInFlight(request, layout, estimates),
    decodeContext: parallelism.decodeContext,
    prefixCaching: request.prefixCaching,
  }
  const { blocks, memory, stageWeights } = room(request, layout, estimates)
  const capacity = kvCapacity(layout, blocks, maxTokens, sequences)
  if (capacity.usableBlocks < capacity.blocksPerSequence)
    estimates.push(
      `not even one sequence of ${maxTokens} tokens has room: an engine refuses to start; give a smaller --max-model-len`,
    )
  const contexts = request.contextTokens.map((tokens): ContextLimit => {
    const workerRequests = concurrencyLimit(layout, capacity.usableBlocks, tokens, sequences)
    const perSequence = blocksPerSequence(layout, tokens, sequences)
    return { tokens, blocks: perSequence, workerRequests, fleetRequests: workerRequests * workers }
  })
  const prefillTokensPerSecond = request.prefillTokensPerSecond ?? estimatedPrefill(request, estimates)
  return {
    tokenBytesPerRank: tokenBytesPerRank(model, dtype, parallelism),
    distantTokenBytesPerRank: distantTokenBytesPerRank(model, dtype, parallelism),
    tokenBytesOfModel: tokenBytesOfModel(model, dtype),
    inFlightTokens: sequences.inFlightTokens,
    ...{ layout, memory, capacity, contexts, prefillTokensPerSecond, estimates },
    kvBytesPerGpu: Math.max(...layout.blockBytes) * blocks,
    fleetTokens: capacity.tokens * workers,
    logLine: vllmLogLine(capacity, maxTokens),
    fullCacheStepMs: fullCacheStep(request, layout, blocks, stageWeights, estimates),
    breakEven: prefillTokensPerSecond === null ? [] : worths(request, prefillTokensPerSecond, estimates),
    ...workloadSizes(request, capacity, estimates),
    notes: [...model.notes, ...layout.notes, ...(isSparseFp8 ? [sparseFp8Note] : [])],
  }
}

/** Blocks on every GPU: given, or by the memory that is given or left over. */
function room(
  request: SizingRequest,
  layout: KvLayout,
  estimates: string[],
): { blocks: number; memory: MemoryUse | null; stageWeights: readonly number[] | null } {
  const { kvMemoryBytes, model, parallelism, utilization } = request
  const stages = layout.blockBytes.length
  const gpuCount = parallelism.tensor * parallelism.pipeline
  const given = request.weightBytes
  const stageWeights =
    given === undefined ? stageWeightBytes(model, parallelism) : Array.from({ length: stages }, () => given / gpuCount)
  if (request.blocks !== undefined) return { blocks: request.blocks, memory: null, stageWeights }
  if (kvMemoryBytes !== undefined) {
    const blocks = blocksInMemory(
      layout,
      Array.from({ length: stages }, () => kvMemoryBytes),
    )
    return { blocks, memory: null, stageWeights }
  }
  const gpuBytes = request.gpu?.memoryBytes
  if (gpuBytes === undefined)
    throw new RouterError(
      'CONFIG_INVALID',
      'Say which GPU (--gpu), how large it is (--gpu-memory) or what is left for the KV cache (--kv-memory, --blocks)',
    )
  if (stageWeights === null)
    throw new RouterError(
      'CONFIG_INVALID',
      `The config does not tell how large the weights are (${model.notes.join('; ')}): give --weights, or --kv-memory`,
    )
  const otherBytes = request.otherBytes ?? assumedOther(request, gpuBytes, estimates)
  estimates.push(
    `what is left for the KV cache: memory × utilization − weights${given === undefined ? ' by the config’s shapes' : ''} − the rest; an engine measures it at start and logs it (--kv-memory takes that figure)`,
  )
  const stageBytes = kvMemory({ gpuBytes, utilization, stageWeightBytes: stageWeights, otherBytes })
  const weightBytes = Math.max(...stageWeights)
  return {
    blocks: blocksInMemory(layout, stageBytes),
    memory: { gpuBytes, utilization, weightBytes, otherBytes },
    stageWeights,
  }
}

/** Activations, graphs and buffers: more on large GPUs, where engines take larger batches, and for experts on several GPUs. */
function assumedOther({ model, parallelism }: SizingRequest, gpuBytes: number, estimates: string[]): number {
  const hasExperts = model.weights?.layers.some((parts) => parts.some(({ module }) => module === 'experts')) ?? false
  const amount = gpuBytes < 70 * gib ? 1.2 : hasExperts && parallelism.tensor > 1 ? 5 : 3
  estimates.push(`${amount} GiB a GPU for activations, graphs and communication: assumed (--other)`)
  return amount * gib
}

/** vLLM 0.32: tokens of a batch by the GPU's memory, times the batches that are on their way at once. */
function assumedInFlight({ gpu, parallelism }: SizingRequest, layout: KvLayout, estimates: string[]): number {
  const memory = gpu?.memoryBytes ?? 0
  const isA100 = gpu?.name?.startsWith('a100') === true
  const batchTokens = memory >= 160 * gib ? 16_384 : memory >= 70 * gib && !isA100 ? 8192 : 2048
  const inFlight = batchTokens * (parallelism.pipeline + 1)
  if (layout.groups.some(({ windowTokens }) => windowTokens !== null))
    estimates.push(
      `windows keep room for ${inFlight} tokens in flight: ${parallelism.pipeline + 1} batches of ${batchTokens}, vLLM’s default for such a GPU (--in-flight-tokens)`,
    )
  return inFlight
}

function estimatedPrefill(
  { gpu, model, parallelism, prefillUtilization }: SizingRequest,
  estimates: string[],
): number | null {
  if (gpu?.flopsPerSecond === undefined) return null
  const utilization = prefillUtilization ?? assumedPrefillUtilization
  const gpuCount = parallelism.tensor * parallelism.pipeline
  const rate = estimatedPrefillTokensPerSecond(model, { flopsPerSecond: gpu.flopsPerSecond }, gpuCount, utilization)
  if (rate !== null)
    estimates.push(
      `prefill rate: ${utilization * 100} % of the peak 16-bit arithmetic, attention to long contexts not counted (--prefill takes a measured one)`,
    )
  return rate
}

/** Share of a link's peak that copies reach. */
const linkEfficiency = 0.8
const assumedDiskBytesPerSecond = 5e9
const assumedSharedBytesPerSecond = 10e9

function worths(
  { bytesPerSecond = {}, dtype, gpu, model, parallelism }: SizingRequest,
  prefillTokensPerSecond: number,
  estimates: string[],
): BreakEven[] {
  const rankBytes = tokenBytesPerRank(model, dtype, parallelism)
  const wholeBytes = tokenBytesOfModel(model, dtype)
  const paths: LoadPath[] = []
  const host = bytesPerSecond.host ?? (gpu?.hostBytesPerSecond ?? 0) * linkEfficiency
  // Every rank has a link of its own and loads what it holds.
  if (host > 0) paths.push({ tier: 'host', bytesPerSecond: host, tokenBytes: rankBytes })
  if (bytesPerSecond.host === undefined && host > 0)
    estimates.push(`host memory at ${linkEfficiency * 100} % of ${gpu?.hostLink ?? 'the link'} (--host-bandwidth)`)
  const disk = bytesPerSecond.disk ?? assumedDiskBytesPerSecond
  const shared = bytesPerSecond.shared ?? assumedSharedBytesPerSecond
  paths.push({ tier: 'disk', bytesPerSecond: disk, tokenBytes: wholeBytes })
  paths.push({ tier: 'shared', bytesPerSecond: shared, tokenBytes: wholeBytes })
  if (bytesPerSecond.disk === undefined) estimates.push('disk at 5 GB/s a worker: assumed (--disk-bandwidth)')
  if (bytesPerSecond.shared === undefined)
    estimates.push('shared store at 10 GB/s a worker, 80 % of 100 Gbit/s: assumed (--shared-bandwidth)')
  return paths.map((path) => breakEven(path, prefillTokensPerSecond))
}

function fullCacheStep(
  { gpu }: SizingRequest,
  { blockBytes }: KvLayout,
  blocks: number,
  stageWeights: readonly number[] | null,
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
  const fleet = { workers, gpuTokens, tokenBytes, blockTokens }
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
