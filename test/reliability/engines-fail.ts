import { setTimeout as after } from 'node:timers/promises'
import { until } from '../support/until.ts'
import { callsOf, countCalls, countTries } from './accounts.ts'
import { elapsed } from './load.ts'
import type { EngineProcess } from './processes.ts'
import { percentile, tally, Verdict, type Scenario } from './scenario.ts'

const whole = ({ status, broken }: { status: number; broken: boolean }): boolean => status === 200 && !broken

const hanging: Scenario = {
  number: '4',
  fault: 'an engine accepts requests and never answers',
  promise: 'the first-token limit fires within ±10 %; the others’ p99 moves < 20 %',
  quick: false,
  async run(rig) {
    const firstTokenMs = rig.size(5000, 2000)
    // A first token that takes a tenth of a second, so that the noise of a busy machine is small beside it.
    const engines = await rig.engines(4, '--step-ms', '25', '--prefill-rate', '1500')
    const [sick] = engines as [EngineProcess]
    const router = await rig.router(engines, { config: { timeouts: { firstTokenMs } } })
    const client = rig.client(router)
    const load = () => client.paced(20, rig.size(20_000, 6000), () => ({ stream: true, maxTokens: 8 }))
    const before = await load()
    await sick.fault({ kind: 'hang' })
    const during = await load()
    const retried = new Set(
      router
        .logged('request')
        .filter(({ attempt }) => attempt !== undefined)
        .map(({ requestId }) => requestId),
    )
    const ttft = (sent: typeof before): number[] => sent.flatMap(({ firstByteMs }) => firstByteMs ?? [])
    const direct = during.filter(({ requestId }) => !retried.has(requestId))
    const late = during.filter(({ requestId }) => retried.has(requestId))
    const usualMs = percentile(ttft(before), 0.5)
    const firedMs = ttft(late).map((ms) => ms - usualMs)
    const [p99Before, p99During] = [percentile(ttft(before), 0.99), percentile(ttft(direct), 0.99)]
    const moved = p99During / p99Before - 1
    const verdict = new Verdict()
    verdict.add(`${during.length} streams: ${tally(during.map(({ status }) => status))}`, during.every(whole))
    verdict.add(`${late.length} met the hanging engine`, late.length > 0)
    verdict.add(
      `limit of ${firstTokenMs} ms fired after ${Math.round(Math.min(...firedMs))}–${Math.round(Math.max(...firedMs))} ms`,
      firedMs.every((ms) => Math.abs(ms / firstTokenMs - 1) <= 0.1),
    )
    verdict.add(
      `p99 to the first token of the others ${p99Before.toFixed(0)} → ${p99During.toFixed(0)} ms (${(moved * 100).toFixed(0)} %)`,
      moved < 0.2,
    )
    await countCalls(verdict, router, engines, before.length + during.length)
    return verdict.finding(ttft(direct))
  },
}

const failing: Scenario = {
  number: '6',
  fault: 'an engine answers 500 always',
  promise: 'ejected after ≤ 5 failures; then ≤ 1 probe per ejection',
  quick: true,
  async run(rig) {
    const engines = await rig.engines(3)
    const [sick] = engines as [EngineProcess]
    const router = await rig.router(engines)
    const client = rig.client(router)
    await sick.fault({ kind: 'status', status: 500 })
    let requests = 0
    const statuses: number[] = []
    while ((await router.metric('ejections_total')) === 0 && requests < 500) {
      statuses.push((await client.chat()).status)
      requests++
    }
    const failures = await sick.calls()
    const sent = await client.closedLoop(8, elapsed(rig.size(20_000, 2500)))
    const calls = await sick.calls()
    const ejections = await router.metric('ejections_total')
    statuses.push(...sent.map(({ status }) => status))
    const verdict = new Verdict()
    verdict.add(`ejected after ${failures} failures`, failures <= 5)
    verdict.add(`then ${calls - failures} probes in ${ejections} ejections`, calls - failures <= ejections)
    verdict.add(
      `clients saw ${tally(statuses)}`,
      statuses.every((status) => status === 200),
    )
    countTries(verdict, router)
    await countCalls(verdict, router, engines, statuses.length)
    return verdict.finding()
  },
}

const refusing: Scenario = {
  number: '7',
  fault: 'an engine answers 400, 1,000 times',
  promise: 'the breaker stays closed; the same body comes back',
  quick: true,
  async run(rig) {
    const engines = await rig.engines(2)
    const router = await rig.router(engines)
    const client = rig.client(router)
    const body = { error: { message: 'no such thing', type: 'BadRequestError', param: 'x', code: 400 } }
    for (const engine of engines) await engine.fault({ kind: 'status', status: 400, body })
    let left = rig.size(1000, 200)
    const total = left
    const sent = await client.closedLoop(8, () => left-- <= 0)
    const same = sent.filter((one) => one.status === 400 && one.body === JSON.stringify(body))
    const states = (await router.workers()).map(({ state }) => state)
    const verdict = new Verdict()
    verdict.add(
      `${same.length} of ${sent.length} answers are the engine’s 400, byte for byte`,
      same.length === sent.length,
    )
    verdict.add(
      `${await router.metric('ejections_total')} ejections`,
      states.every((state) => state === 'healthy'),
    )
    const calls = await callsOf(engines)
    verdict.add(`${calls} upstream calls, none twice`, calls === sent.length && sent.length >= total)
    return verdict.finding()
  },
}

const busy: Scenario = {
  number: '8',
  fault: 'engines answer 429 or 503 with retry-after',
  promise: 'tried elsewhere once, else passed through',
  quick: false,
  async run(rig) {
    const engines = await rig.engines(2)
    const [sick] = engines as [EngineProcess]
    const router = await rig.router(engines)
    const client = rig.client(router)
    const verdict = new Verdict()
    let requests = 0
    for (const status of [429, 503]) {
      const fault = { kind: 'status', status, headers: { 'retry-after': '1' } }
      await sick.fault(fault)
      const one = await client.closedLoop(2, elapsed(rig.size(3000, 500)))
      for (const engine of engines) await engine.fault(fault)
      const before = await callsOf(engines)
      const all = await client.chat()
      const calls = (await callsOf(engines)) - before
      requests += one.length + 1
      verdict.add(`${status} at one engine: ${tally(one.map((sent) => sent.status))}`, one.every(whole))
      verdict.add(
        `at both: ${all.status}, retry-after ${String(all.headers['retry-after'])}, ${calls} calls`,
        all.status === status && all.headers['retry-after'] === '1' && calls === 2,
      )
      for (const engine of engines) await engine.fault({ kind: 'none' })
      await until(async () => (await client.chat()).status === 200 && ++requests > 0, 'they are free again')
    }
    const ejections = await router.metric('ejections_total')
    verdict.add(`${ejections} ejections`, ejections === 0)
    countTries(verdict, router)
    await countCalls(verdict, router, engines, requests)
    return verdict.finding()
  },
}

const mostFailing: Scenario = {
  number: '10',
  fault: '3 of 4 engines fail',
  promise: 'at most 50 % are ejected (panic rule); 0 refusals while one is healthy',
  quick: false,
  async run(rig) {
    const engines = await rig.engines(4)
    const router = await rig.router(engines)
    const client = rig.client(router)
    for (const engine of engines.slice(1)) await engine.fault({ kind: 'status', status: 500 })
    const isOver = elapsed(rig.size(15_000, 3000))
    const load = client.closedLoop(8, isOver)
    let mostEjected = 0
    while (!isOver()) {
      const ejected = (await router.workers()).filter(({ state }) => state === 'ejected').length
      mostEjected = Math.max(mostEjected, ejected)
      await after(20)
    }
    const sent = await load
    const refused = router.logged('request refused').length
    const verdict = new Verdict()
    verdict.add(`at most ${mostEjected} of 4 ejected at a time`, mostEjected <= 2)
    verdict.add(`${refused} of ${sent.length} refused`, refused === 0)
    verdict.add(`clients saw ${tally(sent.map(({ status }) => status))}`)
    countTries(verdict, router)
    await countCalls(verdict, router, engines, sent.length)
    return verdict.finding()
  },
}

export const enginesFail: readonly Scenario[] = [hanging, failing, refusing, busy, mostFailing]
