import type { TestContext } from 'node:test'
import { RedisLink } from '../../src/replication/link.ts'
import type { RedisOptions } from '../../src/replication/redis-options.ts'
import { createMetrics, type Metrics } from '../../src/telemetry/metrics.ts'
import { until } from './until.ts'

export interface LogLine {
  readonly level: string
  readonly message: string
  readonly fields: object
}

export interface RigLink {
  readonly link: RedisLink
  readonly metrics: Metrics
  /** What it has logged so far. */
  readonly lines: LogLine[]
  /** Sums of a counter over its labels, as scraped. */
  readonly counted: (name: string) => Promise<Record<string, number>>
  readonly isUp: (deadlineMs?: number) => Promise<void>
  readonly isAway: (deadlineMs?: number) => Promise<void>
}

export const redisDefaults = {
  prefix: 'warmroute',
  required: false,
  connectMs: 1000,
  commandMs: 1000,
  heartbeatMs: 250,
  awayMs: 1000,
  commandsUnderWay: 4096,
} satisfies RedisOptions

/** A link with the defaults of the config, begun; it stops with the test. */
export function linkFor(t: TestContext, options: Partial<RedisOptions>): RigLink {
  const lines: LogLine[] = []
  const note = (level: string) => (fields: object, message: string) => void lines.push({ level, message, fields })
  const log = { debug: note('debug'), info: note('info'), warn: note('warn'), error: note('error') }
  const metrics = createMetrics()
  const context = { clock: () => performance.now(), random: () => 0.5, log, metrics }
  const link = new RedisLink({ ...redisDefaults, ...options }, context)
  t.after(() => link.stop())
  void link.start()
  const becomes = (kind: string) => (deadlineMs?: number) =>
    until(() => link.state.kind === kind, `Redis is ${kind}`, deadlineMs)
  return {
    link,
    metrics,
    lines,
    counted: async (name) => {
      const metric = await metrics.registry.getSingleMetric(`warmroute_${name}`)?.get()
      return Object.fromEntries(
        (metric?.values ?? []).map(({ labels, value }) => [Object.values(labels).join(), value]),
      )
    },
    isUp: becomes('up'),
    isAway: becomes('away'),
  }
}
