import type { Row } from './row.ts'
import type { Trace } from './trace.ts'

export interface TraceFormat {
  readonly name: string
  /** One sentence for the docs. */
  readonly description: string
  /** Whether a file with this first row is of this format. */
  recognizes(first: Row): boolean
  create(options: TraceOptions): TraceReader
}

export interface TraceOptions {
  /** Of several models in one recording, which one; absent where there is but one. */
  readonly model?: string
}

/** Takes a trace row by row. */
export interface TraceReader {
  add(row: Row): void
  done(): Pick<Trace, 'blockTokens' | 'sessions'>
}
