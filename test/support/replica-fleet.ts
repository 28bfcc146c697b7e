import type { TestContext } from 'node:test'
import { startRouter, type Router } from '../../src/main.ts'
import { collectingLog, configOf, Fleet, startFleet, type FleetOptions, type LogLine } from './fleet.ts'
import type { RedisServer } from './redis-server.ts'
import { until } from './until.ts'

/** Several routers in front of the same simulated engines, which share what they know through one Redis. */
export interface ReplicaFleet {
  readonly replicas: readonly Fleet[]
  /** Starts another one. */
  readonly add: (options?: { readonly ready?: boolean; readonly config?: object }) => Promise<Fleet>
}

export async function replicaFleet(
  t: TestContext,
  redis: Pick<RedisServer, 'url'>,
  count: number,
  options: FleetOptions = {},
): Promise<ReplicaFleet> {
  const shared = { keys: { secret: 'the same on all replicas' }, redis: { url: redis.url }, ...options.config }
  const first = await startFleet({ ...options, config: shared })
  t.after(() => first.stop())
  const replicas: Fleet[] = [first]
  const add: ReplicaFleet['add'] = async ({ ready = true, config = {} } = {}) => {
    const log: LogLine[] = []
    const merged = { ...options, config: { ...shared, ...config } }
    const router: Router = await startRouter(configOf(merged, first.simulators.urls), { log: collectingLog(log) })
    t.after(() => router.stop())
    const replica = new Fleet(router, first.simulators, log)
    replicas.push(replica)
    if (ready) await until(async () => (await replica.workers()).every(isLive), 'its workers are live')
    return replica
  }
  for (let i = 1; i < count; i++) await add()
  return { replicas, add }
}

function isLive({ state, events }: { readonly state: string; readonly events: { readonly state: string } }): boolean {
  return state === 'healthy' && events.state === 'live'
}
