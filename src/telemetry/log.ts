import { destination, pino } from 'pino'

/** The log as rooms see it: fields first, then a constant message. Never prompt text, never a key. */
export interface Log {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const
export type LogLevel = (typeof logLevels)[number]

/**
 * JSON lines on the given file descriptor. Lines are buffered up to 32 KiB and flushed every 200 ms, since a write a
 * request costs more than the routing decision; `flush` writes what is left.
 */
export function createLog(level: LogLevel, fileDescriptor = 1): Log & { flush(): void } {
  const out = destination({ fd: fileDescriptor, sync: false, minLength: 32_768, maxWrite: 65_536 })
  // After close or on a broken pipe there is nobody left to tell.
  out.on('error', () => undefined)
  const logger = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, out)
  const timer = setInterval(() => out.flush(), 200)
  timer.unref()
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    flush: () => {
      try {
        out.flushSync()
      } catch {
        // The descriptor may not be open yet or be gone; the lines then have no reader.
      }
    },
  }
}

export const silentLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
}
