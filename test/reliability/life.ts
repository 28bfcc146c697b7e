import { rmSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { setTimeout as after } from 'node:timers/promises'
import { model } from '../support/fleet.ts'
import { until } from '../support/until.ts'
import { countCalls } from './accounts.ts'
import { elapsed, streamEnding } from './load.ts'
import type { EngineProcess } from './processes.ts'
import type { Rig } from './rig.ts'
import { tally, Verdict, type Scenario } from './scenario.ts'

const statusOf = (url: string): Promise<number> =>
  fetch(url, { headers: { connection: 'close' } }).then(
    ({ status }) => status,
    () => 0,
  )

const terminated: Scenario = {
  number: '42',
  fault: 'SIGTERM under 200 streams',
  promise:
    'readiness refuses new work, every stream finishes or meets the grace limit, exit code 0; 0 are cut before the limit',
  quick: true,
  async run(rig) {
    const verdict = new Verdict()
    const graceMs = rig.size(10_000, 1500)
    for (const kind of ['finish', 'outlive'] as const) {
      // A simulated engine takes a request when its longest answer has room.
      const engines = await rig.engines(2, '--capacity-blocks', '65536')
      const router = await rig.router(engines, { config: { shutdown: { graceMs } } })
      const client = rig.client(router)
      const streams = rig.size(200, 30)
      let begun = 0
      const maxTokens = kind === 'finish' ? 60 : 4000
      const load = client.burst(streams, () => ({ stream: true, maxTokens, onFirstByte: () => begun++ }))
      await until(() => begun === streams, 'all streams have begun', 20_000)
      const termMs = performance.now()
      router.signal('SIGTERM')
      await until(async () => (await statusOf(`${router.adminUrl}/readyz`)) !== 200, 'it is no longer ready')
      const unreadyMs = performance.now() - termMs
      const newcomer = rig.client(router, 1)
      const refused = await newcomer.chat()
      const sent = await load
      const code = await router.exited
      const endedMs = performance.now() - termMs
      const cut = sent.filter((one) => streamEnding(one) !== 'whole')
      const early = cut.filter(({ endedAtMs }) => endedAtMs - termMs < graceMs - 50)
      verdict.add(
        `${kind === 'finish' ? 'streams that end in time' : `streams that outlive the limit of ${graceMs / 1000} s`}: ${tally(sent.map(streamEnding))}`,
        kind === 'finish' ? cut.length === 0 : sent.every((one) => streamEnding(one) !== 'cut'),
      )
      verdict.add(`${early.length} cut before the limit`, early.length === 0)
      verdict.add(`not ready after ${unreadyMs.toFixed(0)} ms`)
      verdict.add(
        `a new request got ${refused.status === 0 ? 'no connection' : refused.status}`,
        refused.status !== 200,
      )
      verdict.add(
        `ended after ${(endedMs / 1000).toFixed(1)} s with ${String(code)}`,
        code === 0 && endedMs < graceMs + 3000,
      )
    }
    return verdict.finding()
  },
}

const reloaded: Scenario = {
  number: '43',
  fault: 'the config is reloaded 100 times under load; a bad file; an engine is removed',
  promise: 'a bad file keeps the old config and is 1 error; a good one loses 0 requests; a removed engine drains',
  quick: true,
  async run(rig) {
    const engines = await rig.engines(3)
    const router = await rig.router(engines)
    const client = rig.client(router)
    const name = basename(router.configFile, '.yaml')
    const reloads = (result: string): Promise<number> => router.metric('config_reloads_total', { result })
    const reload = async (...given: Parameters<Rig['configFile']>): Promise<void> => {
      const before = await reloads('applied')
      rig.configFile(...given)
      router.signal('SIGHUP')
      await until(async () => (await reloads('applied')) > before, 'the config is taken over', 10_000)
    }
    const verdict = new Verdict()
    writeFileSync(router.configFile, 'pools: [ { modle: demo } ]')
    router.signal('SIGHUP')
    await until(async () => (await reloads('failed')) === 1, 'the bad config is refused')
    verdict.add(`bad file: ${(await router.workers()).length} of 3 engines stay`, (await router.workers()).length === 3)
    let over = false
    const load = client.closedLoop(
      8,
      () => over,
      (index) => ({ maxTokens: 8, stream: index % 2 === 0 }),
    )
    const times = rig.size(100, 10)
    for (let time = 0; time < times; time++)
      await reload(name, time % 2 === 0 ? engines.slice(1) : engines, {
        config: { health: { intervalMs: 300 + time } },
      })
    await router.healthy(3)
    // One long stream an engine, so that one of them is the engine's that is removed.
    let begun = 0
    const streams = client.burst(6, () => ({ stream: true, maxTokens: 150, onFirstByte: () => begun++ }))
    await until(() => begun === 6, 'the long streams have begun')
    await reload(name, engines.slice(1))
    const left = (await router.workers()).find(({ id }) => id === engines[0]?.url)
    const ended = await streams
    await until(async () => (await router.workers()).length === 2, 'the removed engine is gone', 10_000)
    over = true
    const sent = await load
    const lost = sent.filter((one) => one.status !== 200 || one.broken || one.body.includes('"error"'))
    verdict.add(`${times} good ones: ${lost.length} of ${sent.length} requests lost`, lost.length === 0)
    verdict.add(
      `streams while one of the engines was removed (${left?.state ?? 'gone'}): ${tally(ended.map(streamEnding))}`,
      ended.every((one) => streamEnding(one) === 'whole'),
    )
    await countCalls(verdict, router, engines, sent.length + ended.length)
    return verdict.finding()
  },
}

const reusedAddress: Scenario = {
  number: '44',
  fault: 'an engine’s address is reused by an engine of another model; discovery fails or finds nothing',
  promise: '0 requests to the wrong model; the last good list is kept when the API is lost',
  quick: false,
  async run(rig) {
    const engines = await rig.engines(2)
    const router = await rig.router(engines)
    const client = rig.client(router)
    const isOver = elapsed(rig.size(8000, 4000))
    const load = client.closedLoop(8, isOver, () => ({ maxTokens: 8 }))
    const [reused] = engines as [EngineProcess]
    await after(rig.size(2000, 500))
    await reused.kill()
    await reused.start('--model', 'another')
    const sent = await load
    const wrong = await reused.calls()
    const row = (await router.workers()).find(({ id }) => id === reused.url)
    const verdict = new Verdict()
    verdict.add(`${wrong} requests reached the engine of another model`, wrong === 0)
    verdict.add(`it is shown as ${row?.state ?? ''}, ${row?.degraded ?? ''}`, row?.degraded === 'wrong_model')
    verdict.add(
      `${sent.length} requests for ${model}: ${tally(sent.map(({ status }) => status))}`,
      sent.every(({ status }) => status === 200),
    )
    await loseDiscovery(rig, engines.slice(1), verdict)
    verdict.add('lost DNS: `test/system/discovery.test.ts`; Kubernetes watch: not built yet')
    return verdict.finding()
  },
}

/** A list of engines goes bad in every way that a file can. */
async function loseDiscovery(rig: Rig, engines: readonly EngineProcess[], verdict: Verdict): Promise<void> {
  const path = rig.path('engines.json')
  const good = JSON.stringify(engines.map(({ url }) => url))
  writeFileSync(path, good)
  const router = await rig.router([], { pool: { discovery: { file: { path, pollMs: 20 } } } })
  await router.healthy(engines.length)
  const client = rig.client(router)
  const statuses: number[] = []
  for (const lose of [() => rmSync(path), () => writeFileSync(path, '{ bad'), () => writeFileSync(path, '')]) {
    const errors = await router.metric('discovery_errors_total')
    lose()
    await until(async () => (await router.metric('discovery_errors_total')) > errors, 'the fault is counted')
    statuses.push((await client.chat()).status)
    writeFileSync(path, good)
    await until(async () => (await router.metric('discovery_age_seconds')) < 0.5, 'the list is good again')
  }
  verdict.add(
    `list of engines missing, bad, empty: ${tally(statuses)}`,
    statuses.every((status) => status === 200),
  )
}

export const life: readonly Scenario[] = [terminated, reloaded, reusedAddress]
