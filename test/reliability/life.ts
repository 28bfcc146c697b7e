import { setTimeout as after } from 'node:timers/promises'
import { model } from '../support/fleet.ts'
import { until } from '../support/until.ts'
import { elapsed, LoadClient, streamEnding } from './load.ts'
import type { EngineProcess } from './processes.ts'
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
    const graceMs = rig.size(10_000, 3000)
    for (const kind of ['finish', 'outlive'] as const) {
      const engines = await rig.engines(2)
      const router = await rig.router(engines, { config: { shutdown: { graceMs } } })
      const client = new LoadClient(router.url)
      rig.after(() => client.close())
      const streams = rig.size(200, 30)
      let begun = 0
      const maxTokens = kind === 'finish' ? 60 : 4000
      const load = client.burst(streams, () => ({ stream: true, maxTokens, onFirstByte: () => begun++ }))
      await until(() => begun === streams, 'all streams have begun', 20_000)
      const termMs = performance.now()
      router.signal('SIGTERM')
      await until(async () => (await statusOf(`${router.adminUrl}/readyz`)) !== 200, 'it is no longer ready')
      const unreadyMs = performance.now() - termMs
      const newcomer = new LoadClient(router.url, 1)
      rig.after(() => newcomer.close())
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

const reusedAddress: Scenario = {
  number: '44',
  fault: 'an engine’s address is reused by an engine of another model; discovery fails or finds nothing',
  promise: '0 requests to the wrong model; the last good list is kept when the API is lost',
  quick: true,
  async run(rig) {
    const engines = await rig.engines(2)
    const router = await rig.router(engines)
    const client = new LoadClient(router.url)
    rig.after(() => client.close())
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
    verdict.add('discovery: not built yet')
    return verdict.finding()
  },
}

export const life: readonly Scenario[] = [terminated, reusedAddress]
