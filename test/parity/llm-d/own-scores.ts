import { createProfile } from '../../../src/routing/catalogue.ts'
import { translateEndpointPickerConfig } from '../../../src/routing/llm-d/endpoint-picker-config.ts'
import { InFlightCounters } from '../../../src/workers/fleet.ts'
import { aDispatch, aRequest, aWorker, candidatesOf } from '../../support/routing.ts'
import type { EndpointState, PluginRun, RequestState } from './states.ts'

/**
 * What our plugin makes of each request: by endpoint its score, or 1 and 0 for kept and left out; −1 for one that is no
 * candidate. It is set up by an EndpointPickerConfig, as llm-d's is.
 */
export function ownScores({ kind, type, parameters, steps }: PluginRun): number[][] {
  const config = { apiVersion: 'llm-d.ai/v1alpha1', kind: 'EndpointPickerConfig', plugins: [{ type, parameters }] }
  const faults: unknown[] = []
  const profile = createProfile(translateEndpointPickerConfig(config, type).profile, {
    context: { clock: () => 0, random: () => 0.999 },
    workers: 64,
    fault: (_plugin, error) => faults.push(error),
  })
  const results = steps.map((step) => {
    const present = step.endpoints.flatMap(({ present }, index) => (present ? [index] : []))
    const candidates = candidatesAt(step, present)
    const request = { promptTokens: step.tokens, header: (name: string) => step.headers[name] ?? null }
    profile.choose(aRequest(request), candidates, candidates)
    const row = step.endpoints.map(() => -1)
    for (const [place, index] of present.entries())
      row[index] = (kind === 'filter' ? profile.keep[place] : profile.scores[0]?.[place]) ?? NaN
    profile.dispatched(aDispatch({ serial: step.pick, promptTokens: 1, uncachedTokens: 1 }))
    return row
  })
  if (faults.length > 0) throw new Error(`${type} failed: ${String(faults[0])}`)
  return results
}

function candidatesAt({ tokens, endpoints }: RequestState, present: readonly number[]) {
  const counters = new InFlightCounters(64)
  const workers = present.map((index) => {
    const state = endpoints[index] as EndpointState
    counters.add(index, state.requests, state.tokens, 0)
    const { labels, running, waiting, kv } = state
    return aWorker(index, { labels, load: { running, waiting, kvUsage: kv, source: 'poll', atMs: 0 } })
  })
  return candidatesOf(
    workers,
    counters,
    endpoints.map(({ match }) => match),
    tokens,
  )
}
