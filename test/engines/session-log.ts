import { fileURLToPath } from 'node:url'
import { readTrace } from '../../src/replay/traces/read.ts'
import { promptTokenIds, traceFigures, type TraceRequest, type TraceSession } from '../../src/replay/traces/trace.ts'
import { seededRandom } from '../support/random.ts'
import { shrunk } from '../support/shrunk.ts'

export interface SessionLogOptions {
  /** Tokens of the recording for one token here. */
  readonly scale: number
  readonly sessions: number
  /** Leading requests of a session. */
  readonly turns: number
  /** A session ends before its first prompt of more tokens, and is left out if it has no two shorter ones. */
  readonly longestPromptTokens: number
  /** Recorded pauses are shortened by this, and none is longer than the longest. */
  readonly pauseScale: number
  readonly longestPauseMs: number
  readonly longestOutputTokens: number
  readonly seed: number
}

export interface LoggedRequest {
  /** From the answer before it. */
  readonly pauseMs: number
  readonly prompt: Uint32Array
  readonly outputTokens: number
}

export interface SessionLog {
  /** Requests that follow one another. */
  readonly sessions: readonly (readonly LoggedRequest[])[]
  readonly requests: number
  readonly promptTokens: number
  /** Tokens of all distinct blocks: what a cache would have to hold to forget nothing. */
  readonly workingSetTokens: number
  /** Share of the blocks that a cache without end would have held, session after session. */
  readonly idealHitRatio: number
}

const recorded = fileURLToPath(new URL('../fixtures/traces/agentic_sessions.jsonl', import.meta.url))

/**
 * Recorded agent sessions made small: every block of the recording becomes one of `1 / scale` of its tokens, so that what is
 * shared with what, and in what order it comes, stays as it was. The same options make the same log.
 */
export async function sessionLog(options: SessionLogOptions): Promise<SessionLog> {
  const trace = shrunk(await readTrace(recorded), options.scale)
  const { blockTokens } = trace
  const random = seededRandom(options.seed)
  const usable = trace.sessions
    .map((session) => shortened(session, options))
    .filter(({ requests }) => requests.length > 1)
  if (usable.length < options.sessions) throw new RangeError(`the recording has ${usable.length} such sessions`)
  const chosen = shuffled(usable, random).slice(0, options.sessions)
  const { requests, promptTokens, distinctBlocks, idealHitRatio } = traceFigures({ ...trace, sessions: chosen })
  let serial = options.seed
  const sessions = chosen.map((session) =>
    session.requests.map((request, turn) => ({
      // The first ones would all come at once.
      pauseMs: turn === 0 ? random() * options.longestPauseMs : request.thinkMs,
      prompt: promptTokenIds({ blockTokens }, request, serial++),
      outputTokens: request.outputTokens,
    })),
  )
  return { sessions, requests, promptTokens, workingSetTokens: distinctBlocks * blockTokens, idealHitRatio }
}

function shortened(session: TraceSession, options: SessionLogOptions): TraceSession {
  const scaled = session.requests.slice(0, options.turns).map((request) => quicker(request, options))
  const tooLong = scaled.findIndex(({ promptTokens }) => promptTokens > options.longestPromptTokens)
  return { ...session, requests: tooLong === -1 ? scaled : scaled.slice(0, tooLong) }
}

function quicker(request: TraceRequest, options: SessionLogOptions): TraceRequest {
  const { pauseScale, longestPauseMs, longestOutputTokens } = options
  return {
    ...request,
    thinkMs: Math.min(longestPauseMs, request.thinkMs / pauseScale),
    outputTokens: Math.min(longestOutputTokens, request.outputTokens),
  }
}

function shuffled<Item>(items: readonly Item[], random: () => number): Item[] {
  return items
    .map((item) => ({ item, place: random() }))
    .sort((a, b) => a.place - b.place)
    .map(({ item }) => item)
}
