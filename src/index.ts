/** What the package offers to authors of routing policy plugins. */
export { definePolicy } from './routing/policy.ts'
export type {
  Dispatch,
  Filter,
  FilterPlugin,
  Picker,
  PickerPlugin,
  PolicyContext,
  PolicyFleet,
  PolicyHooks,
  PolicyMatch,
  PolicyPlugin,
  PolicyRequest,
  Scorer,
  ScorerPlugin,
} from './routing/policy.ts'
