import type { PolicyPlugin } from '../policy.ts'
import { contextLengthPlugins } from './context-length.ts'
import { engineLoadScorers } from './engine-load-scorers.ts'
import { inFlightScorers } from './in-flight-scorers.ts'
import { labelFilters } from './label-filters.ts'
import { labelScorers } from './label-scorers.ts'
import { loadFilters } from './load-filters.ts'
import { pickers } from './pickers.ts'
import { prefixScorers } from './prefix-scorers.ts'
import { sessionPlugins } from './sessions.ts'

/** llm-d's filters, scorers and pickers under its own type names, by the formulas of its router of August 2026. */
export const llmDPlugins: readonly PolicyPlugin[] = [
  ...labelFilters,
  ...loadFilters,
  ...contextLengthPlugins,
  ...sessionPlugins,
  ...engineLoadScorers,
  ...inFlightScorers,
  ...prefixScorers,
  ...labelScorers,
  ...pickers,
]
