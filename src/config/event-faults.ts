import type { Config, WorkerConfig } from './schema.ts'
import { streamName } from './stream-name.ts'

type WorkerEvents = Exclude<WorkerConfig['events'], false | undefined>

/** What the schema cannot say of a worker's KV events. */
export function workerEventFaults({ events }: Pick<WorkerConfig, 'events'>, place: string): string[] {
  if (events === undefined || events === false || events.redis === undefined) return []
  const others = (['endpoint', 'replay', 'bind', 'poll'] satisfies (keyof WorkerEvents)[]).filter(
    (name) => events[name] !== undefined && events[name] !== false,
  )
  return others.map(
    (name) => `${place}events: "redis" and "${name}" exclude each other; the events come from one place`,
  )
}

/** The same of all workers in a config, together with what they share. */
export function eventFaults({ pools, redis }: Config): string[] {
  const faults: string[] = []
  const streams = new Map<string, string>()
  const check = (given: Pick<WorkerConfig, 'events'>, place: string): string | null => {
    faults.push(...workerEventFaults(given, `${place}.`))
    const stream = given.events === false ? undefined : given.events?.redis
    if (stream !== undefined && redis === undefined)
      faults.push(`${place}.events.redis: there is no Redis to read "${stream}" from; give redis.url`)
    if (stream !== undefined && redis?.cluster !== undefined && !stream.includes(`{${redis.prefix}}`))
      faults.push(
        `${place}.events.redis: "${stream}" may lie on another node of the cluster than what is read with it; ` +
          `let {${redis.prefix}} stand in the name`,
      )
    return stream ?? null
  }
  for (const [index, pool] of pools.entries()) {
    for (const [number, worker] of pool.workers.entries()) {
      const place = `pools[${index}].workers[${number}]`
      const stream = check(worker, place)
      if (stream === null || !URL.canParse(worker.url)) continue
      const name = streamName(stream, worker.url, null)
      const before = streams.get(name)
      if (before !== undefined)
        faults.push(`${place}.events.redis: "${name}" is the stream of ${before}; each worker needs its own`)
      streams.set(name, place)
    }
    const found = pool.discovery?.worker
    const place = `pools[${index}].discovery.worker`
    const stream = found === undefined ? null : check(found, place)
    if (stream !== null && !stream.includes('%h'))
      faults.push(`${place}.events.redis: "${stream}" would be the stream of all; let %h stand for each one’s host`)
  }
  return faults
}
