import { pino } from 'pino'
import { LineWriter } from './line-writer.ts'

/** The log as rooms see it: fields first, then a constant message. Never prompt text, never a key. */
export interface Log {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

/** The log of a process that writes its own. */
export interface OwnLog extends Log {
  setLevel(level: LogLevel): void
  flush(): void
  dropped(): number
}

export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const
export type LogLevel = (typeof logLevels)[number]

const flushMs = 100

/** JSON lines on the given file descriptor, at most 100 ms late; `flush` writes what is left, before the process ends. */
export function createLog(level: LogLevel, fileDescriptor = 1): OwnLog {
  const writer = new LineWriter(fileDescriptor)
  const logger = pino({ level, base: null, timestamp: () => `,"time":"${isoNow()}"` }, writer)
  setInterval(() => writer.flush(), flushMs).unref()
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    setLevel: (level) => (logger.level = level),
    flush: () => writer.flushSync(),
    dropped: () => writer.dropped,
  }
}

let shownMs = -1
let shown = ''

/** Many lines share a millisecond: its text is made once. */
function isoNow(): string {
  const nowMs = Date.now()
  if (nowMs !== shownMs) {
    shownMs = nowMs
    shown = new Date(nowMs).toISOString()
  }
  return shown
}

export const silentLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
}
