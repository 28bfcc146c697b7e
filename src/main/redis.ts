import type { RedisConfig } from '../config/schema.ts'
import { IntakeStreams } from '../replication/intake-streams.ts'
import { RedisLink, type RedisLinkContext } from '../replication/link.ts'

/** The router's one way to Redis, and what uses it. */
export interface Redis {
  readonly link: RedisLink
  /** KV events that bridges write. */
  readonly streams: IntakeStreams
  stop(): Promise<void>
}

/** Null where everything stays in this process. Throws RouterError CONFIG_UNREADABLE when a certificate cannot be read. */
export function openRedis(given: RedisConfig | undefined, context: RedisLinkContext): Redis | null {
  if (given === undefined) return null
  const link = new RedisLink(given, context)
  const streams = new IntakeStreams({ link, ...context })
  return {
    link,
    streams,
    stop() {
      streams.stop()
      return link.stop()
    },
  }
}
