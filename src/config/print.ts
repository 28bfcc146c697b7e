import { stringify } from 'yaml'
import type { Config } from './schema.ts'

const hidden = '(hidden)'

/** The effective config as YAML, without secrets. */
export function printedConfig(config: Config): string {
  const shown = structuredClone(config)
  if (shown.keys.secret !== undefined) shown.keys.secret = hidden
  for (const key of shown.apiKeys) key.hash = hidden
  if (shown.admin.keyHash !== undefined) shown.admin.keyHash = hidden
  if (shown.redis !== undefined) {
    if (shown.redis.url !== undefined) shown.redis.url = withoutCredentials(shown.redis.url)
    for (const door of [shown.redis, shown.redis.sentinel]) if (door?.password !== undefined) door.password = hidden
  }
  for (const pool of shown.pools) {
    for (const worker of pool.workers) worker.url = withoutCredentials(worker.url)
    for (const worker of [...pool.workers, ...(pool.discovery?.worker === undefined ? [] : [pool.discovery.worker])]) {
      if (worker.apiKey !== undefined) worker.apiKey = hidden
      for (const name of Object.keys(worker.headers ?? {}))
        if (worker.headers !== undefined) worker.headers[name] = hidden
    }
  }
  if (shown.workerUrls !== undefined) shown.workerUrls = shown.workerUrls.map(withoutCredentials)
  return stringify(shown)
}

function withoutCredentials(url: string): string {
  const parsed = new URL(url)
  parsed.username = ''
  parsed.password = ''
  return parsed.toString()
}
