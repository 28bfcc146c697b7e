import type { Candidates } from './candidates.ts'

export interface Reason {
  /** Why this worker, in one word. */
  readonly reason: string
  /** Why the prefix match could not be used, where it could not. */
  readonly fallback: string | null
  /** The other candidate with the longest match, for the log line. */
  readonly best: { readonly other?: string; readonly otherCachedTokens?: number }
}

/**
 * @param unusable why the request has no prefix match to use, if it has none
 * @param policy why the policy did not go by the longest match, where it says so
 */
export function reasonOf(
  candidates: Candidates,
  chosen: number,
  unusable: string | null,
  policy: string | null = null,
): Reason {
  let longest = 0
  let other = -1
  let degraded: string | null = null
  for (let i = 0; i < candidates.count; i++) {
    const cached = candidates.cachedTokens[i] as number
    longest = Math.max(longest, cached + (candidates.comingTokens[i] as number))
    degraded ??= candidates.workers[i]?.degraded ?? null
    if (i !== chosen && (other === -1 || cached > (candidates.cachedTokens[other] as number))) other = i
  }
  const best =
    other === -1
      ? {}
      : { other: candidates.ids[other] ?? '', otherCachedTokens: candidates.cachedTokens[other] as number }
  const fallback = unusable ?? (longest === 0 ? degraded : null)
  if (fallback !== null) return { reason: 'load_only', fallback, best }
  if (policy !== null) return { reason: 'fallback', fallback: policy, best }
  if (longest === 0) return { reason: 'no_match', fallback: 'no_match', best }
  if (candidates.count === 1) return { reason: 'only_candidate', fallback: null, best }
  const coming = candidates.comingTokens[chosen] as number
  if ((candidates.cachedTokens[chosen] as number) + coming < longest) {
    return { reason: 'match_outweighed', fallback: null, best }
  }
  if (coming > 0) return { reason: 'match_coming', fallback: null, best }
  return { reason: candidates.exact[chosen] === 1 ? 'longest_match' : 'approximate_match', fallback: null, best }
}
