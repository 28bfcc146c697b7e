import type { TestContext } from 'node:test'
import { freePort, startRedis, type RedisServer, type RedisServerOptions } from './redis-server.ts'
import { until } from './until.ts'

const slots = 16_384

/** A cluster of three masters. */
export async function startCluster(t: TestContext, options: RedisServerOptions = {}): Promise<RedisServer[]> {
  const nodes: (RedisServer & { busPort: number })[] = []
  for (let i = 0; i < 3; i++) {
    const busPort = await freePort()
    const settings = [
      ['cluster-enabled', 'yes'],
      ['cluster-port', String(busPort)],
      ['cluster-node-timeout', '1000'],
    ] as const
    const server = await startRedis(t, { ...options, settings: [...settings, ...(options.settings ?? [])] })
    nodes.push(Object.assign(server, { busPort }))
  }
  for (const [i, { client }] of nodes.entries()) {
    const [first, end] = [Math.floor((i * slots) / 3), Math.floor(((i + 1) * slots) / 3)]
    await client.call('CLUSTER', 'ADDSLOTSRANGE', first, end - 1)
    await client.call('CLUSTER', 'SET-CONFIG-EPOCH', i + 1)
  }
  for (const { port, busPort } of nodes.slice(1)) {
    await nodes[0]?.client.call('CLUSTER', 'MEET', '127.0.0.1', port, busPort)
  }
  for (const { client } of nodes) {
    const knowsAll = async (): Promise<boolean> => {
      const isOk = String(await client.call('CLUSTER', 'INFO')).includes('cluster_state:ok')
      return isOk && ((await client.call('CLUSTER', 'SLOTS')) as unknown[]).length === 3
    }
    await until(knowsAll, 'the cluster is formed', 15_000)
  }
  return nodes
}

/** The node that holds a key, and the others. */
export async function holderOf(nodes: readonly RedisServer[], key: string): Promise<[RedisServer, RedisServer[]]> {
  const slot = Number(await nodes[0]?.client.call('CLUSTER', 'KEYSLOT', key))
  const at = Math.min(2, [1, 2].filter((i) => slot >= Math.floor((i * slots) / 3)).length)
  const holder = nodes[at]
  if (holder === undefined) throw new Error('no node holds the key')
  return [holder, nodes.filter((node) => node !== holder)]
}

/** Gives all slots of one node to another, with the keys of one of them. */
export async function moveSlot(from: RedisServer, to: RedisServer, key: string): Promise<void> {
  const slot = Number(await from.client.call('CLUSTER', 'KEYSLOT', key))
  const [fromId, toId] = await Promise.all(
    [from, to].map(async ({ client }) => String(await client.call('CLUSTER', 'MYID'))),
  )
  await to.client.call('CLUSTER', 'SETSLOT', slot, 'IMPORTING', fromId ?? '')
  await from.client.call('CLUSTER', 'SETSLOT', slot, 'MIGRATING', toId ?? '')
  const keys = (await from.client.call('CLUSTER', 'GETKEYSINSLOT', slot, 1000)) as string[]
  if (keys.length > 0) await from.client.call('MIGRATE', '127.0.0.1', to.port, '', 0, 5000, 'KEYS', ...keys)
  for (const { client } of [to, from]) await client.call('CLUSTER', 'SETSLOT', slot, 'NODE', toId ?? '')
}

/** A master, its replica, and a Sentinel that fails over within a second or two; each asks for a password. */
export async function startSentinel(t: TestContext) {
  const passwords = { redis: 'of-redis', sentinel: 'of-sentinel' }
  const password = passwords.redis
  const masterauth = ['masterauth', password] as const
  const master = await startRedis(t, { password, settings: [masterauth] })
  const replica = await startRedis(t, {
    password,
    settings: [masterauth, ['replicaof', `127.0.0.1 ${master.port}`]],
  })
  const isSynced = async (): Promise<boolean> =>
    (await replica.client.info('replication')).includes('master_link_status:up')
  await until(isSynced, 'the replica is in step', 10_000)
  const sentinel = await startRedis(t, {
    sentinel: true,
    password: passwords.sentinel,
    settings: [
      ['sentinel', `monitor main 127.0.0.1 ${master.port} 1`],
      ['sentinel', `auth-pass main ${password}`],
      ['sentinel', 'down-after-milliseconds main 500'],
      ['sentinel', 'failover-timeout main 3000'],
    ],
  })
  const knowsReplica = async (): Promise<boolean> =>
    ((await sentinel.client.call('SENTINEL', 'REPLICAS', 'main')) as unknown[]).length === 1
  await until(knowsReplica, 'the Sentinel knows the replica', 15_000)
  return { master, replica, sentinel, passwords }
}
