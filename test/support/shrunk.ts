import type { Trace, TraceRequest } from '../../src/replay/traces/trace.ts'

/**
 * A trace with one token where there were `scale`: what is shared with what, and in what order it comes, stays as it was. An engine that
 * computes as many times fewer tokens a second needs as long for it.
 */
export function shrunk(trace: Trace, scale: number): Trace {
  const blockTokens = trace.blockTokens / scale
  if (!Number.isInteger(blockTokens)) throw new RangeError(`blocks of ${trace.blockTokens} tokens by ${scale}`)
  const smaller = (request: TraceRequest): TraceRequest => ({
    ...request,
    promptTokens: Math.max(1, Math.floor(request.promptTokens / scale)),
    outputTokens: Math.max(1, Math.floor(request.outputTokens / scale)),
  })
  const sessions = trace.sessions.map((session) => ({ ...session, requests: session.requests.map(smaller) }))
  return { ...trace, blockTokens, sessions }
}
