/** What the package offers to authors of routing policy plugins. */
export { definePolicy } from './routing/policy.ts'
export type {
  Dispatch,
  Fallback,
  FallbackPlugin,
  Filter,
  FilterPlugin,
  Picker,
  PickerPlugin,
  PolicyContext,
  PolicyFacts,
  PolicyFleet,
  PolicyHooks,
  PolicyMatch,
  PolicyPlugin,
  PolicyRequest,
  Scorer,
  ScorerPlugin,
} from './routing/policy.ts'

/** Sizes: what a model's KV cache takes, what a GPU has room for, what a workload reuses (docs/sizing.md). */
export { inOrderOfArrival } from './sizing/arrivals.ts'
export { breakEven, estimatedPrefillTokensPerSecond } from './sizing/break-even.ts'
export { findGpu, gpus } from './sizing/gpus.ts'
export { tokenBytesOfModel, tokenBytesPerRank } from './sizing/kv-bytes.ts'
export { readModelConfig } from './sizing/model-config.ts'
export { ReuseCurve } from './sizing/reuse-curve.ts'
export { sizeModel } from './sizing/sizing.ts'
export { curvePoints, tierReach, tierSizes } from './sizing/tiers.ts'
export type { Gpu } from './sizing/gpus.ts'
export type { KvCacheDtype, Parallelism } from './sizing/kv-bytes.ts'
export type { ModelConfig } from './sizing/model-config.ts'
export type { Sizing } from './sizing/sizing.ts'
export type { SizingRequest, Workload } from './sizing/sizing-request.ts'
