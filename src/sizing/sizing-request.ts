import type { Gpu } from './gpus.ts'
import type { KvCacheDtype, Parallelism } from './kv-bytes.ts'
import type { ModelConfig } from './model-config.ts'
import type { ReuseCurve } from './reuse-curve.ts'

/** What is to be sized. Whatever is left out is estimated or assumed, and the answer says so. */
export interface SizingRequest {
  readonly model: ModelConfig
  /** May be left out where `kvMemoryBytes` or `blocks` says how much room there is. */
  readonly gpu?: Partial<Gpu> | undefined
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
