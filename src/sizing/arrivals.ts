/** Requests of a recording that follow one another. */
export interface RecordedSession<R extends RecordedRequest> {
  /** When it began, from the recording's start; null: as soon as there is room for one more user. */
  readonly startMs: number | null
  readonly requests: readonly R[]
}

export interface RecordedRequest {
  /** Orders requests of a session by its own clock. */
  readonly recordedMs: number
}

/**
 * All requests in the order in which a fleet would see them. Of sessions that have no time of their own, `users` run at once, each
 * as it was recorded; when one ends, the next begins.
 */
export function inOrderOfArrival<R extends RecordedRequest>(
  sessions: readonly RecordedSession<R>[],
  users: number,
): R[] {
  const freeAtMs = Array.from({ length: Math.max(1, Math.min(users, sessions.length)) }, () => 0)
  const arrivals: { atMs: number; request: R }[] = []
  for (const { requests, startMs } of sessions) {
    const firstMs = requests[0]?.recordedMs ?? 0
    const lastMs = requests.at(-1)?.recordedMs ?? firstMs
    let beginMs = startMs
    if (beginMs === null) {
      beginMs = Math.min(...freeAtMs)
      freeAtMs[freeAtMs.indexOf(beginMs)] = beginMs + lastMs - firstMs
    }
    for (const request of requests) arrivals.push({ atMs: beginMs + request.recordedMs - firstMs, request })
  }
  return arrivals.sort((one, other) => one.atMs - other.atMs).map(({ request }) => request)
}
