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
