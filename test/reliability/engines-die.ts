import { connect, type Socket } from 'node:net'
import { setTimeout as after } from 'node:timers/promises'
import { until } from '../support/until.ts'
import { countCallsAtSurvivors, countTries } from './accounts.ts'
import { elapsed, streamEnding } from './load.ts'
import type { EngineProcess } from './processes.ts'
import { percentile, tally, Verdict, type Scenario } from './scenario.ts'

/** Checks so rare that only a request can find out that an engine is gone. */
const uncheckedHealth = { health: { intervalMs: 600_000 }, load: { intervalMs: 600_000, staleMs: 600_000 } }

/** The last of an array that has one. */
function last<Item>(items: readonly Item[]): Item {
  const item = items.at(-1)
  if (item === undefined) throw new RangeError('no items')
  return item
}

const killedWhole: Scenario = {
  number: '1',
  fault: 'kill -9 of one of 4 engines under load, answers not streamed',
  promise: '0 client errors where no byte was sent, at most 1 retry each, the engine is out in ≤ 2 s',
  quick: true,
  async run(rig) {
    const engines = await rig.engines(4)
    const router = await rig.router(engines)
    const client = rig.client(router)
    const durationMs = rig.size(10_000, 2500)
    const load = client.closedLoop(rig.size(32, 16), elapsed(durationMs), () => ({ maxTokens: 8 }))
    await after(durationMs * 0.4)
    const victim = last(engines)
    const killedMs = performance.now()
    victim.signal('SIGKILL')
    await until(
      async () => (await router.workers()).some(({ id, state }) => id === victim.url && state === 'unhealthy'),
      'the dead engine is out',
    )
    const outMs = performance.now() - killedMs
    const sent = await load
    await router.idle()
    const failed = sent.filter(({ status, broken }) => status !== 200 || broken)
    const verdict = new Verdict()
    verdict.add(`${failed.length} errors in ${sent.length} requests`, failed.length === 0)
    verdict.add(`out after ${Math.round(outMs)} ms`, outMs <= 2000)
    countTries(verdict, router)
    await countCallsAtSurvivors(verdict, router, engines.slice(0, -1))
    return verdict.finding()
  },
}

const killedStreaming: Scenario = {
  number: '2',
  fault: 'the same in the middle of 200 streams',
  promise: 'each broken stream gets an error event or a reset within 1 s; 0 clean ends without [DONE]',
  quick: true,
  async run(rig) {
    const engines = await rig.engines(4, '--step-ms', '30')
    const router = await rig.router(engines)
    const client = rig.client(router)
    let begun = 0
    const streams = rig.size(200, 40)
    const load = client.burst(streams, () => ({ stream: true, maxTokens: 80, onFirstByte: () => begun++ }))
    await until(() => begun === streams, 'all streams have begun', 20_000)
    const killedMs = performance.now()
    last(engines).signal('SIGKILL')
    const sent = await load
    const cut = sent.filter((one) => streamEnding(one) !== 'whole')
    const slowestMs = Math.max(0, ...cut.map(({ endedAtMs }) => endedAtMs - killedMs))
    const verdict = new Verdict()
    verdict.add(
      `${streams} streams: ${tally(sent.map(streamEnding))}`,
      sent.every((one) => streamEnding(one) !== 'cut'),
    )
    verdict.add(`${cut.length} were the dead engine's`, cut.length > 0)
    verdict.add(`the last was told after ${Math.round(slowestMs)} ms`, slowestMs <= 1000)
    await countCallsAtSurvivors(verdict, router, engines.slice(0, -1))
    return verdict.finding()
  },
}

const allDead: Scenario = {
  number: '3',
  fault: 'all engines dead',
  promise: '503 + retry-after in < 100 ms p99, no hang; service is back ≤ 3 s after the engines are',
  quick: false,
  async run(rig) {
    const engines = await rig.engines(3)
    const router = await rig.router(engines)
    const client = rig.client(router)
    await client.burst(8)
    await Promise.all(engines.map((engine) => engine.kill()))
    const atOnce = await client.burst(20)
    await until(async () => (await router.workers()).every(({ state }) => state === 'unhealthy'), 'all are known dead')
    const sent = await client.closedLoop(4, elapsed(rig.size(5000, 500)))
    const all = [...atOnce, ...sent]
    const p99 = percentile(
      all.map(({ totalMs }) => totalMs),
      0.99,
    )
    const verdict = new Verdict()
    verdict.add(
      `${sent.length} requests: ${tally(sent.map(({ status }) => status))}`,
      sent.every(({ status }) => status === 503),
    )
    verdict.add(
      `of 20 sent at the moment of death, which find it out: ${tally(atOnce.map(({ status }) => status))}`,
      atOnce.every(({ status }) => status === 502 || status === 503),
    )
    verdict.add(
      'each with retry-after',
      all.every(({ headers }) => headers['retry-after'] !== undefined),
    )
    verdict.add(`p99 ${p99.toFixed(1)} ms`, p99 < 100)
    await Promise.all(engines.map((engine) => engine.start()))
    const backMs = performance.now()
    await until(async () => (await client.chat()).status === 200, 'service is back', 15_000)
    const waitedMs = performance.now() - backMs
    verdict.add(`back ${Math.round(waitedMs)} ms after the engines`, waitedMs <= 3000)
    return verdict.finding(all.map(({ totalMs }) => totalMs))
  },
}

const blackHole: Scenario = {
  number: '5',
  fault: 'an engine is black-holed (SYN dropped), or its port is closed',
  promise: 'connect timeout ≤ 1 s, then another engine',
  quick: false,
  async run(rig) {
    const verdict = new Verdict()
    for (const kind of ['black hole', 'closed port'] as const) {
      const engines = await rig.engines(2)
      const router = await rig.router(engines, { config: uncheckedHealth })
      const client = rig.client(router)
      const [victim, other] = engines as [EngineProcess, EngineProcess]
      if (kind === 'closed port') await victim.kill()
      else await holeIn(victim, (cleanup) => rig.after(cleanup))
      const sent = await client.burst(rig.size(40, 10))
      const slowestMs = Math.max(...sent.map(({ totalMs }) => totalMs))
      const retries = await router.metric('retries_total', { reason: 'upstream_unreachable' })
      verdict.add(
        `${kind}: ${tally(sent.map(({ status }) => status))}`,
        sent.every(({ status }) => status === 200),
      )
      verdict.add(`${retries} found it`, retries > 0)
      verdict.add(`slowest ${Math.round(slowestMs)} ms`, slowestMs <= 1250)
      await countCallsAtSurvivors(verdict, router, [other])
    }
    return verdict.finding()
  },
}

/** Holds a process and fills its queue of connections, from which on the kernel drops every SYN for it. */
async function holeIn(engine: EngineProcess, cleanUp: (cleanup: () => void) => void): Promise<void> {
  const { hostname, port } = new URL(engine.url)
  const sockets: Socket[] = []
  cleanUp(() => sockets.forEach((socket) => socket.destroy()))
  engine.signal('SIGSTOP')
  for (let full = false; !full;) {
    const socket = connect(Number(port), hostname)
    socket.on('error', () => undefined)
    sockets.push(socket)
    full = await Promise.race([
      new Promise<boolean>((resolve) => socket.once('connect', () => resolve(false))),
      after(500, true),
    ])
  }
}

const flapping: Scenario = {
  number: '9',
  fault: 'an engine flaps: killed and restarted for 60 s, 1 s up and about 1 s down',
  promise: 'error rate < 0.5 %',
  quick: false,
  async run(rig) {
    const engines = await rig.engines(4)
    const router = await rig.router(engines)
    const client = rig.client(router)
    const isOver = elapsed(rig.size(60_000, 5000))
    const load = client.closedLoop(8, isOver, (index) => ({ maxTokens: 8, stream: index % 4 === 0 }))
    const flapper = last(engines)
    let flaps = 0
    while (!isOver()) {
      await flapper.kill()
      await flapper.start()
      await after(1000)
      flaps++
    }
    const sent = await load
    const whole = sent.filter(({ body, status, broken }) => status === 200 && !broken && !body.includes('"error"'))
    const share = 1 - whole.length / sent.length
    const verdict = new Verdict()
    verdict.add(
      `${flaps} deaths, ${sent.length - whole.length} errors in ${sent.length} requests (${(share * 100).toFixed(2)} %)`,
      share < 0.005,
    )
    countTries(verdict, router)
    await countCallsAtSurvivors(verdict, router, engines.slice(0, -1))
    return verdict.finding()
  },
}

export const enginesDie: readonly Scenario[] = [killedWhole, killedStreaming, allDead, blackHole, flapping]
