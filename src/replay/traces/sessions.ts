import type { Row } from './row.ts'
import type { TraceRequest, TraceSession } from './trace.ts'

interface Gathered {
  readonly id: string
  readonly startMs: number | null
  readonly requests: TraceRequest[]
  recordedMs: number
}

/** Puts requests that name their session in the order of their lines, and those that name none into one each. */
export class SessionRows {
  readonly #sessions: Gathered[] = []
  readonly #byName = new Map<string, Gathered>()
  #count = 0

  /** Reads `session`, `at_ms` and `think_ms`: a request has a time, or a pause after the one before it, or is a user's first. */
  add(row: Row, request: Pick<TraceRequest, 'promptTokens' | 'outputTokens' | 'blocks'>): void {
    this.#count++
    const name = row.has('session') ? row.text('session') : null
    const session = name === null ? undefined : this.#byName.get(name)
    const atMs = row.has('at_ms') ? row.number('at_ms') : null
    if (session !== undefined) {
      const thinkMs = row.number('think_ms')
      session.recordedMs += thinkMs
      session.requests.push({ ...request, thinkMs, recordedMs: session.recordedMs })
      return
    }
    if (name === null && atMs === null) row.fault('at_ms', 'a number of at least 0 where there is no "session"')
    const id = name ?? (row.has('id') ? row.text('id') : String(this.#count))
    const first = { ...request, thinkMs: 0, recordedMs: atMs ?? 0 }
    const opened = { id, startMs: atMs, requests: [first], recordedMs: atMs ?? 0 }
    this.#sessions.push(opened)
    if (name !== null) this.#byName.set(name, opened)
  }

  done(): TraceSession[] {
    const sessions = this.#sessions.map(({ id, startMs, requests }) => ({ id, startMs, requests, commonBlocks: 0 }))
    return sessions.sort((a, b) => (a.startMs ?? 0) - (b.startMs ?? 0))
  }
}
