import { setTimeout as after } from 'node:timers/promises'
import { prose } from '../support/fleet.ts'
import { freePort, startRedis, type RedisServer } from '../support/redis-server.ts'
import { tcpProxy } from '../support/tcp-proxy.ts'
import { until } from '../support/until.ts'
import { elapsed, type LoadClient, type Sent } from './load.ts'
import type { RouterProcess } from './processes.ts'
import type { Rig } from './rig.ts'
import { percentile, tally, Verdict, type Scenario } from './scenario.ts'

const secret = { keys: { secret: 'one for all replicas' } }
const withRedis = (url: string) => ({ config: { ...secret, redis: { url } } })

const p99 = (sent: readonly Sent[]): number =>
  percentile(
    sent.map(({ totalMs }) => totalMs),
    0.99,
  )
const failed = (sent: readonly Sent[]): Sent[] => sent.filter(({ status, broken }) => status !== 200 || broken)

/** Blocks that a replica knows of each worker. */
async function known(router: RouterProcess): Promise<string> {
  return (await router.workers()).map(({ id, map, events }) => `${id} ${map.blocks.gpu} ${events.state}`).join()
}

/** How long it takes until all replicas know the same, and from live events. */
async function agreedMs(routers: readonly RouterProcess[]): Promise<number> {
  const startMs = performance.now()
  await until(
    async () => {
      const [first = '', ...others] = await Promise.all(routers.map(known))
      return first.includes('live') && !/replaying|unknown/.test(first) && others.every((other) => other === first)
    },
    'all replicas know the same',
    30_000,
  )
  return performance.now() - startMs
}

async function upMs(router: RouterProcess, isUp: 0 | 1): Promise<number> {
  const startMs = performance.now()
  await until(async () => (await router.metric('redis_up')) === isUp, `redis_up is ${isUp}`, 30_000)
  return performance.now() - startMs
}

const stateLines = (router: RouterProcess): number =>
  router.out.split('\n').filter((line) => /"msg":"Redis is (up|back|away)/.test(line)).length

/** The same requests to each replica. */
async function load(clients: readonly LoadClient[], perSecond: number, durationMs: number): Promise<Sent[]> {
  const sent = await Promise.all(
    clients.map((client, replica) =>
      client.paced(perSecond, durationMs, (index) => ({ content: prose(`${replica} ${index % 20}`, 60) })),
    ),
  )
  return sent.flat()
}

async function replicas(rig: Rig, urls: readonly string[], jumps = false) {
  const engines = await rig.engines(2)
  const routers: RouterProcess[] = []
  for (const url of urls) routers.push(await rig.router(engines, { ...withRedis(url), jumps }))
  return { engines, routers, clients: routers.map((router) => rig.client(router)) }
}

const absent: Scenario = {
  number: '36',
  fault: 'Redis is absent at boot',
  promise: 'ready in ≤ 5 s, serving',
  quick: true,
  async run(rig) {
    const verdict = new Verdict()
    const engines = await rig.engines(2)
    const startMs = performance.now()
    const router = await rig.router(engines, withRedis(`redis://127.0.0.1:${await freePort()}`))
    await until(async () => (await fetch(`${router.adminUrl}/readyz`)).status === 200, 'it is ready', 15_000)
    const readyMs = performance.now() - startMs
    const sent = await load([rig.client(router)], 50, 1000)
    verdict.add(`ready ${(readyMs / 1000).toFixed(1)} s after its process was started`, readyMs <= 5000)
    verdict.add(tally(sent.map(({ status }) => status)), failed(sent).length === 0)
    const states = (await router.workers()).map(({ events }) => events.state)
    verdict.add(
      `events ${tally(states)}`,
      states.every((state) => state === 'live'),
    )
    return verdict.finding()
  },
}

const frozen: Scenario = {
  number: '37',
  fault: 'Redis is held (SIGSTOP) under load',
  promise: 'p99 + < 5 ms, 0 errors, 1 log line per state change; healed ≤ 5 s after SIGCONT',
  quick: false,
  async run(rig) {
    const verdict = new Verdict()
    const redis = await startRedis(rig)
    const { routers, clients } = await replicas(rig, [redis.url, redis.url])
    const durationMs = rig.size(10_000, 2000)
    await load(clients, 100, 2000)
    const before = await load(clients, 100, durationMs)
    redis.pause()
    const meanwhile = await load(clients, 100, durationMs)
    redis.resume()
    const healedMs = Math.max(...(await Promise.all(routers.map((router) => upMs(router, 1)))))
    const agreed = await agreedMs(routers)
    const errors = [...failed(before), ...failed(meanwhile)].length
    const moreMs = p99(meanwhile) - p99(before)
    verdict.add(`p99 ${p99(before).toFixed(1)} → ${p99(meanwhile).toFixed(1)} ms`, moreMs < 5)
    verdict.add(`${errors} of ${before.length + meanwhile.length} failed`, errors === 0)
    // A line reaches us after the metric; and one too many may still come.
    await after(1000)
    const lines = routers.map(stateLines)
    // Up at the start, away, and back.
    verdict.add(
      `lines of state ${lines.join(' and ')}`,
      lines.every((count) => count === 3),
    )
    verdict.add(
      `healed after ${(healedMs / 1000).toFixed(2)} s, agreed ${(agreed / 1000).toFixed(2)} s later`,
      healedMs + agreed <= 5000,
    )
    return verdict.finding()
  },
}

const losses: readonly (readonly [
  what: string,
  inflict: (redis: RedisServer) => Promise<unknown>,
  mend: (redis: RedisServer) => Promise<unknown>,
])[] = [
  ['FLUSHALL', (redis) => redis.client.flushall(), () => Promise.resolve()],
  ['restarted empty', (redis) => redis.kill(), (redis) => redis.restart()],
  [
    'READONLY',
    async (redis) => redis.client.call('REPLICAOF', '127.0.0.1', String(await freePort())),
    (redis) => redis.client.call('REPLICAOF', 'NO', 'ONE'),
  ],
  [
    'OOM',
    (redis) => redis.client.config('SET', 'maxmemory', '1'),
    (redis) => redis.client.config('SET', 'maxmemory', '0'),
  ],
]

const lost: Scenario = {
  number: '38',
  fault: 'FLUSHALL, restart empty, READONLY, OOM, one after the other under load',
  promise: 'no crash, 0 errors; rebuilt from events within 5 s',
  quick: true,
  async run(rig) {
    const verdict = new Verdict()
    const redis = await startRedis(rig)
    const { routers, clients } = await replicas(rig, [redis.url, redis.url])
    for (const [what, inflict, mend] of losses) {
      await inflict(redis)
      const sent = await load(clients, 50, rig.size(5000, 1500))
      await mend(redis)
      const healedMs = Math.max(...(await Promise.all(routers.map((router) => upMs(router, 1)))))
      const agreed = await agreedMs(routers)
      const seconds = ((healedMs + agreed) / 1000).toFixed(2)
      verdict.add(
        `${what}: ${failed(sent).length} of ${sent.length} failed, the same map after ${seconds} s`,
        failed(sent).length === 0 && healedMs + agreed <= 5000,
      )
    }
    verdict.add(
      'nobody ended',
      routers.every(({ ended }) => !ended),
    )
    return verdict.finding()
  },
}

const slow: Scenario = {
  number: '39',
  fault: 'Redis takes 200 ms',
  promise: 'request path unchanged: p99 + < 5 ms, 0 errors',
  quick: false,
  async run(rig) {
    const verdict = new Verdict()
    const redis = await startRedis(rig)
    const proxy = await tcpProxy(rig, redis.port)
    const { routers, clients } = await replicas(rig, [`redis://127.0.0.1:${proxy.port}`])
    const durationMs = rig.size(10_000, 2000)
    await load(clients, 100, 2000)
    const before = await load(clients, 100, durationMs)
    proxy.delay(200)
    const meanwhile = await load(clients, 100, durationMs)
    const errors = [...failed(before), ...failed(meanwhile)].length
    verdict.add(`p99 ${p99(before).toFixed(1)} → ${p99(meanwhile).toFixed(1)} ms`, p99(meanwhile) - p99(before) < 5)
    verdict.add(`${errors} of ${before.length + meanwhile.length} failed`, errors === 0)
    verdict.add(`${await routers[0]?.metric('redis_state_changes_total', { state: 'away' })} times away`)
    return verdict.finding()
  },
}

const parted: Scenario = {
  number: '40',
  fault: 'two replicas are cut off from Redis, and so from each other, for 60 s; then one is killed (kill -9)',
  promise:
    'errors 0; converge in ≤ 5 s; load counts never negative, none leaked after kill -9; its workers are taken over in ≤ 2 s',
  quick: true,
  async run(rig) {
    const verdict = new Verdict()
    const redis = await startRedis(rig)
    const proxies = [await tcpProxy(rig, redis.port), await tcpProxy(rig, redis.port)]
    const urls = proxies.map(({ port }) => `redis://127.0.0.1:${port}`)
    const { routers, clients } = await replicas(rig, urls)
    for (const proxy of proxies) proxy.freeze()
    const cutMs = rig.size(60_000, 3000)
    const sent = await load(clients, 50, cutMs)
    verdict.add(`${failed(sent).length} of ${sent.length} failed`, failed(sent).length === 0)
    for (const proxy of proxies) proxy.thaw()
    const healedMs = Math.max(...(await Promise.all(routers.map((router) => upMs(router, 1)))))
    const agreed = await agreedMs(routers)
    verdict.add(`the same map after ${((healedMs + agreed) / 1000).toFixed(2)} s`, healedMs + agreed <= 5000)
    // The one that writes of workers dies.
    const held = await Promise.all(routers.map((router) => router.metric('redis_leases')))
    const dies = held.indexOf(Math.max(...held))
    const second = routers[dies] as RouterProcess
    const first = routers[1 - dies] as RouterProcess
    await until(async () => (await first.metric('replicas')) === 2, 'each knows of the other', 10_000)
    const dying = clients[dies] as LoadClient
    // Long answers are under way there when it dies.
    const dead = dying.burst(20, () => ({ stream: true, maxTokens: 2000 }))
    await until(
      async () => (await first.metric('in_flight_elsewhere_requests')) > 0,
      'its requests are known here',
      10_000,
    )
    await second.kill()
    const killedMs = performance.now()
    const names = (await first.workers()).length + 1
    const taken = until(
      async () => (await first.metric('redis_leases')) === names,
      'it writes of all workers',
      10_000,
    ).then(() => performance.now() - killedMs)
    await until(
      async () => (await first.metric('in_flight_elsewhere_requests')) === 0,
      'its requests are forgotten',
      10_000,
    )
    verdict.add(
      `a killed replica’s requests count for ${((performance.now() - killedMs) / 1000).toFixed(1)} s more`,
      performance.now() - killedMs < 4000,
    )
    const takenMs = await taken
    verdict.add(`its workers were taken over within ${(takenMs / 1000).toFixed(1)} s`, takenMs <= 2000)
    await dead
    await first.idle()
    const counts = (await first.workers()).flatMap(({ inFlight }) => Object.values(inFlight))
    verdict.add(
      `counts ${tally(counts)} at the end`,
      counts.every((count) => count === 0),
    )
    return verdict.finding()
  },
}

const jumped: Scenario = {
  number: '41',
  fault: 'the clock of one replica jumps by 1 h, ahead and back',
  promise: 'no mass expiry, no negative timer, 0 errors',
  quick: true,
  async run(rig) {
    const verdict = new Verdict()
    const redis = await startRedis(rig)
    const { routers, clients } = await replicas(rig, [redis.url, redis.url], true)
    await load(clients, 50, 1000)
    await agreedMs(routers)
    const [first] = routers as [RouterProcess]
    const before = await known(first)
    const leases = async (): Promise<string> =>
      (await Promise.all(routers.map((router) => router.metric('redis_leases')))).join(' and ')
    const held = await leases()
    await first.jump()
    await after(rig.size(5000, 1500))
    const ahead = await known(first)
    await first.jump()
    await after(rig.size(5000, 1500))
    verdict.add('the same blocks are known ahead and back', ahead === before && (await known(first)) === before)
    verdict.add(`leases ${held} before, ${await leases()} after`, held === (await leases()))
    const client = clients[0] as LoadClient
    const sent = await client.closedLoop(2, elapsed(500), (index) => ({ content: prose(`0 ${index % 20}`, 60) }))
    verdict.add(`${failed(sent).length} of ${sent.length} failed`, failed(sent).length === 0)
    verdict.add(
      `Redis away ${await first.metric('redis_state_changes_total', { state: 'away' })} times`,
      (await first.metric('redis_state_changes_total', { state: 'away' })) === 0,
    )
    const warnings = first.errors.includes('TimeoutNegativeWarning')
    verdict.add(warnings ? 'a negative timer' : 'no negative timer', !warnings)
    return verdict.finding()
  },
}

export const redisFaults: readonly Scenario[] = [absent, frozen, lost, slow, parted, jumped]
