import { loadavg } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { Endpoint } from '../../src/replay/real-time/endpoint.ts'
import { folder, installDynamo, makeMockModel, Mocker, type MockerOptions } from './mocker.ts'
import { Processes } from './processes.ts'
import type { Report } from './report.ts'
import { Router } from './router.ts'
import { sessionLog, type LoggedRequest, type SessionLog } from './session-log.ts'
import { ratios, standing, standingsTable, type Answered, type Lap } from './standings.ts'

const own = 'kv-aware'
const policies = [own, 'least-tokens', 'least-loaded', 'round-robin', 'dynamo', 'sglang'] as const
/** What knows nothing of caches is beaten in every single round, the rest on the whole. */
const alwaysBehind = ['least-loaded', 'round-robin'] as const
const rounds = 3
const engines = 4
const blockSize = 16
/** Of the log's distinct blocks, what the caches of all engines hold together. */
const cacheShare = 0.25
/** At work at the same time, each with one session after the other. */
const agents = 10
const eventsMs = 20_000
/** Without a first token, and without a further one. */
const timeoutMs = 120_000
/** Slow enough that computing a prompt takes many times what a busy machine adds; answers are not what is compared. */
const pace = { speedup: 0.25, decodeSpeedup: 4 }
const log = {
  scale: 16,
  sessions: 30,
  turns: 9,
  longestPromptTokens: 6_000,
  pauseScale: 16,
  longestPauseMs: 2_000,
  longestOutputTokens: 16,
}
const seed = 20_261_124

interface Ground {
  readonly report: Report
  readonly programs: string
  readonly model: string
  readonly processes: Processes
}

/**
 * Recorded agent sessions on four of Dynamo's mockers under one policy after the other: the same log for all of a round, on
 * engines and a router that have just been started.
 */
export async function orderRun(report: Report): Promise<void> {
  report.section('The order of policies on NVIDIA Dynamo’s mocker')
  const programs = installDynamo((line) => report.say(line))
  const ground: Ground = {
    ...{ report, programs, model: makeMockModel() },
    processes: new Processes(join(folder, 'running.json')),
  }
  const laps: Lap[] = []
  for (let round = 1; round <= rounds; round++) laps.push(...(await runRound(ground, round)))
  report.section(`${laps.length} laps; times are those of engines at ${pace.speedup} of their pace`)
  for (const row of standingsTable(laps, own)) console.log(row)
  judge(report, laps)
}

async function runRound(ground: Ground, round: number): Promise<Lap[]> {
  const sessions = await sessionLog({ ...log, seed: seed + round })
  const { requests, promptTokens, workingSetTokens, idealHitRatio } = sessions
  const blocks = Math.round((cacheShare * workingSetTokens) / blockSize / engines)
  ground.report.section(
    `Round ${round}: ${requests} requests of ${sessions.sessions.length} sessions, ${promptTokens} prompt tokens, ` +
      `${(100 * idealHitRatio).toFixed(1)} % of them seen before; ${engines} engines with ${blocks} blocks of ${blockSize}`,
  )
  const laps: Lap[] = []
  for (let turn = 0; turn < policies.length; turn++) {
    // Whoever was first is last in the next round, so that none has the quiet moments to itself.
    const policy = policies[(turn + round - 1) % policies.length]
    if (policy === undefined) continue
    const lap = await runLap(ground, { imitates: 'vllm', blocks, blockSize, ...pace }, sessions, policy, round)
    const { meanMs, p50Ms, p90Ms, hitRatio } = standing(lap.answered)
    ground.report.say(
      `${policy.padEnd(12)} mean ${meanMs.toFixed(0)} ms, p50 ${p50Ms.toFixed(0)}, p90 ${p90Ms.toFixed(0)}, ` +
        `${(100 * hitRatio).toFixed(1)} % cached, ${lap.failed} failed, ${lap.seconds.toFixed(0)} s, load ${lap.load.toFixed(1)}`,
    )
    laps.push(lap)
  }
  return laps
}

async function runLap(
  { report, programs, model, processes }: Ground,
  options: MockerOptions,
  { sessions }: SessionLog,
  policy: string,
  round: number,
): Promise<Lap> {
  const mockers: Mocker[] = []
  for (let at = 1; at <= engines; at++)
    mockers.push(await Mocker.at(`mocker ${at}`, options, programs, model, processes))
  for (const mocker of mockers) mocker.start()
  for (const mocker of mockers) await mocker.ready()
  const file = join(folder, 'logs', `order-${policy}.txt`)
  const router = await Router.startWith(configFor(mockers, model, policy), join(folder, 'router.yaml'), file, processes)
  for (const { url } of mockers) {
    const live = await router.workerOnce(
      url,
      ({ state, events }) => state === 'healthy' && events.state === 'live',
      eventsMs,
    )
    if (live === null) report.check(`${policy}, round ${round}: ${url} is healthy and its events live`, false)
  }
  const endpoint = new Endpoint({ url: router.url, model: 'model', clock: () => performance.now() })
  const answered: Answered[] = []
  let failed = 0
  const startMs = performance.now()
  const left = [...sessions]
  const agent = async (): Promise<void> => {
    for (let session = left.shift(); session !== undefined; session = left.shift()) {
      for (const request of session) {
        await pause(request.pauseMs)
        const answer = await ask(endpoint, request)
        if (answer === null) failed++
        else answered.push(answer)
      }
    }
  }
  await Promise.all(Array.from({ length: agents }, agent))
  const seconds = (performance.now() - startMs) / 1000
  endpoint.close()
  processes.endAll()
  return { policy, round, answered, failed, seconds, load: loadavg()[0] ?? NaN }
}

async function ask(endpoint: Endpoint, { prompt, outputTokens }: LoggedRequest): Promise<Answered | null> {
  const question = { prompt, outputTokens, session: null, timeoutMs }
  const answer = await endpoint.ask(question, new AbortController().signal)
  if (answer.kind !== 'answered' || answer.worker === null || answer.predictedCachedTokens === null) return null
  return {
    ttftMs: answer.firstTokenMs - answer.sentMs,
    worker: answer.worker,
    promptTokens: prompt.length,
    predictedTokens: answer.predictedCachedTokens,
    cachedTokens: answer.cachedTokens,
  }
}

/** The mocker tells neither its size nor where its events are. */
function configFor(mockers: readonly Mocker[], model: string, profile: string): object {
  const workers = mockers.map(({ url, events, replay, options }) => ({
    ...{ url, engine: 'vllm', blockSize: options.blockSize, capacityBlocks: options.blocks },
    events: { endpoint: events, replay },
  }))
  return { health: { path: '/health' }, pools: [{ model: 'model', tokenizer: model, profile, workers }] }
}

function judge(report: Report, laps: readonly Lap[]): void {
  const meanMs = (policy: string): number =>
    standing(laps.filter((lap) => lap.policy === policy).flatMap(({ answered }) => answered)).meanMs
  const failed = laps.reduce((total, lap) => total + lap.failed, 0)
  report.equal('every request was answered', failed, 0)
  for (const policy of policies) {
    if (policy === own) continue
    const told = `${meanMs(own).toFixed(0)} against ${meanMs(policy).toFixed(0)} ms`
    report.check(`${own} has a smaller mean time to first token than ${policy}`, meanMs(own) < meanMs(policy), told)
  }
  for (const policy of alwaysBehind) {
    const found = ratios(laps, policy, own)
    const told = found.map((ratio) => ratio.toFixed(2)).join(', ')
    report.check(
      `${policy} takes longer than ${own} in every round`,
      found.every((ratio) => ratio > 1),
      told,
    )
  }
}
