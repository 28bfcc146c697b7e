import { until } from '../support/until.ts'
import type { EngineProcess, RouterProcess } from './processes.ts'
import type { Verdict } from './scenario.ts'

/**
 * Adds how often the engines were called. More calls than requests and retries together would mean that a request was sent
 * twice without anybody having decided so.
 */
export async function countCalls(
  verdict: Verdict,
  router: RouterProcess,
  engines: readonly EngineProcess[],
  requests: number,
): Promise<void> {
  const calls = await callsOf(engines)
  const retries = await router.metric('retries_total')
  verdict.add(`${calls} upstream calls for ${requests} requests and ${retries} retries`, calls <= requests + retries)
}

/**
 * The same where engines were killed, whose counts went with them: each call at a survivor must be the last try of one
 * request that the router logged for it.
 */
export async function countCallsAtSurvivors(
  verdict: Verdict,
  router: RouterProcess,
  survivors: readonly EngineProcess[],
): Promise<void> {
  const urls = new Set(survivors.map(({ url }) => url))
  const calls = await callsOf(survivors)
  const ended = (): number => router.logged('request').filter(({ worker }) => urls.has(String(worker))).length
  // The log is written a moment after what it tells of.
  await until(() => ended() >= calls, 'the log is written', 1000).catch(() => undefined)
  const logged = ended()
  verdict.add(`${calls} calls at the survivors for ${logged} requests that ended there`, calls === logged)
}

/** Adds the largest number of tries that any request took. */
export function countTries(verdict: Verdict, router: RouterProcess): void {
  const most = Math.max(1, ...router.logged('request').map(({ attempt }) => Number(attempt ?? 1)))
  verdict.add(`at most ${most - 1} retry each`, most <= 2)
}

export async function callsOf(engines: readonly EngineProcess[]): Promise<number> {
  const each = await Promise.all(engines.map((engine) => engine.calls()))
  return each.reduce((sum, calls) => sum + calls, 0)
}
