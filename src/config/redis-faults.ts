import type { RedisConfig } from './schema.ts'

/** What the schema of `redis` cannot say. No message repeats a password. */
export function redisFaults(redis: RedisConfig): string[] {
  const ways = (['url', 'sentinel', 'cluster'] as const).filter((way) => redis[way] !== undefined)
  const faults: string[] = []
  if (ways.length !== 1) {
    const given = ways.length === 0 ? '' : `, not ${ways.map((way) => `"${way}"`).join(' and ')}`
    faults.push(`redis: give one of "url", "sentinel" and "cluster"${given}`)
  }
  if (redis.url !== undefined) faults.push(...urlFaults(redis, redis.url))
  if (redis.cluster !== undefined && (redis.database ?? 0) !== 0) {
    faults.push(`redis.database: a Redis Cluster has only database 0, not ${redis.database ?? 0}; leave it out`)
  }
  if (redis.username !== undefined && redis.password === undefined) {
    faults.push('redis.username: a user needs its "password" too')
  }
  if ((redis.tls?.cert === undefined) !== (redis.tls?.key === undefined)) {
    faults.push('redis.tls: "cert" and "key" go together')
  }
  return faults
}

function urlFaults(redis: RedisConfig, given: string): string[] {
  const form = 'redis://HOST:PORT, or rediss://HOST:PORT for TLS'
  if (!URL.canParse(given)) return [`redis.url: not a URL; write it as ${form}`]
  const url = new URL(given)
  const faults: string[] = []
  if (url.protocol !== 'redis:' && url.protocol !== 'rediss:') {
    faults.push(`redis.url: "${url.protocol}" is no protocol of Redis; write it as ${form}`)
  }
  if (url.hostname === '') faults.push(`redis.url: the host is missing; write it as ${form}`)
  if (!/^\/?\d{0,6}$/.test(url.pathname))
    faults.push('redis.url: after the port only the number of a database may stand')
  if (url.search !== '' || url.hash !== '') faults.push('redis.url: options do not stand in the URL, but beside it')
  for (const name of ['username', 'password'] as const) {
    if (url[name] !== '' && redis[name] !== undefined) faults.push(`redis.${name}: stands in the URL already`)
    if (!isDecodable(url[name])) faults.push(`redis.url: the ${name} has a "%" that begins no escape; write it as %25`)
  }
  if (url.username !== '' && url.password === '' && redis.password === undefined) {
    faults.push('redis.url: a user needs its password too; a password alone is written as redis://:PASSWORD@HOST')
  }
  if (url.pathname.length > 1 && redis.database !== undefined) faults.push('redis.database: stands in the URL already')
  return faults
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text)
    return true
  } catch {
    return false
  }
}
