import { open } from 'node:fs/promises'
import { basename } from 'node:path'
import { RouterError } from '../../errors.ts'
import type { TraceFormat, TraceOptions, TraceReader } from './format.ts'
import { traceFormats } from './formats.ts'
import { Row } from './row.ts'
import type { Trace } from './trace.ts'

export interface ReadTraceOptions extends TraceOptions {
  /** Name of a format; absent: told from the first line. */
  readonly format?: string
  /** So many leading sessions (or requests of an open loop) are enough. */
  readonly mostSessions?: number
}

/**
 * Reads a trace. Throws RouterError CONFIG_UNREADABLE where the file cannot be read, TRACE_INVALID with line and field where it is
 * not what its format asks for.
 */
export async function readTrace(path: string, options: ReadTraceOptions = {}): Promise<Trace> {
  const file = basename(path)
  let format: TraceFormat | undefined
  let reader: TraceReader | undefined
  let lineNumber = 0
  for await (const line of linesOf(path)) {
    lineNumber++
    if (line.trim() === '') continue
    const row = Row.parse(line, file, lineNumber)
    format ??= options.format === undefined ? recognized(row, file) : named(options.format)
    reader ??= format.create(options)
    reader.add(row)
  }
  const { blockTokens, sessions } = reader?.done() ?? { blockTokens: 0, sessions: [] }
  if (format === undefined || sessions.length === 0)
    throw new RouterError(
      'TRACE_INVALID',
      `${file} has no requests${options.model === undefined ? '' : ' of that model'}`,
    )
  return { name: file, format: format.name, blockTokens, sessions: sessions.slice(0, options.mostSessions) }
}

async function* linesOf(path: string): AsyncIterable<string> {
  let file
  try {
    file = await open(path)
    if ((await file.stat()).isDirectory()) throw new Error('it is a folder')
  } catch (cause) {
    throw new RouterError('CONFIG_UNREADABLE', `Cannot read the trace ${path}: ${(cause as Error).message}`)
  }
  yield* file.readLines()
}

function recognized(first: Row, file: string): TraceFormat {
  const format = traceFormats.find((candidate) => candidate.recognizes(first))
  if (format === undefined)
    throw new RouterError('TRACE_INVALID', `${file} line 1 is of no known format (${names()}); name it with --format`)
  return format
}

function named(name: string): TraceFormat {
  const format = traceFormats.find((candidate) => candidate.name === name)
  if (format === undefined) throw new RouterError('CONFIG_INVALID', `Unknown trace format "${name}". Known: ${names()}`)
  return format
}

function names(): string {
  return traceFormats.map(({ name }) => name).join(', ')
}
