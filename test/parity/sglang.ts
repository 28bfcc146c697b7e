import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { eventually } from '../engines/client.ts'
import { Processes } from '../engines/processes.ts'
import type { Report } from '../engines/report.ts'
import { keyCases, sequenceCases, shareCases, type KeyCase, type ShareCase, type SglangCase } from './sglang/cases.ts'
import { HeldEngines } from './sglang/held-engines.ts'
import { logDigest, routingKeyHeader } from './sglang/request-log.ts'
import { firstDifference, nearestChoices, ownChoices } from './sglang/own-choices.ts'
import { folder, installSglang, SglangRouter, sglangVersion } from './sglang/router.ts'
import { seededRandom } from '../support/random.ts'
import type { ParitySuite } from './suite.ts'

const toldWithinMs = 20_000
/** Of 3,000 draws, four standard deviations. */
const shareTolerance = 0.037

/** What the real program chose, for the tests that run without it; the logs themselves are drawn from the seed. */
export interface SglangRecord {
  readonly version: string
  readonly seed: number
  readonly cases: readonly { readonly title: string; readonly logDigest: string; readonly chosen: string }[]
}

/** The profile `sglang` before sglang-router. */
export const sglangParity: ParitySuite = async (report, { seed }) => {
  const programs = installSglang((line) => report.say(line))
  const processes = new Processes(join(folder, 'running.json'))
  const cases = []
  for (const one of sequenceCases(seed)) {
    const chosen = await compareSequence(one, report, programs, processes)
    cases.push({ title: one.title, logDigest: logDigest(one.steps), chosen: chosen.join('') })
  }
  const record: SglangRecord = { version: sglangVersion, seed, cases }
  writeFileSync(join(folder, 'sglang.json'), `${JSON.stringify(record, null, 2)}\n`)
  for (const one of keyCases(seed)) await compareKeys(one, seed, report, programs, processes)
  for (const one of shareCases(seed)) await compareShares(one, seed, report, programs, processes)
}

async function compareSequence(
  one: SglangCase,
  report: Report,
  programs: string,
  processes: Processes,
): Promise<number[]> {
  const engines = await HeldEngines.start(one.workers)
  try {
    const name = one.title.replaceAll(/\W+/g, '-')
    const router = await SglangRouter.start(programs, one.theirs, engines, processes, name)
    const theirs = await router.play(one.steps)
    const ours = nearestChoices(one, theirs)
    const equal = theirs.filter((place, index) => place === ours[index]).length
    const first = firstDifference(theirs, ours)
    const told = first === -1 ? '' : `; first at ${first}: theirs ${theirs[first]}, ours ${ours[first]}`
    report.check(one.title, first === -1, `${equal} of ${theirs.length} the same${told}`)
    return theirs
  } finally {
    engines.close()
    processes.endAll()
  }
}

async function compareShares(
  one: ShareCase,
  seed: number,
  report: Report,
  programs: string,
  processes: Processes,
): Promise<void> {
  const { title, workers, heldTokens, steps, shares } = one
  const engines = await HeldEngines.start(workers, heldTokens)
  try {
    const router = await SglangRouter.start(programs, one.theirs, engines, processes, title)
    if (heldTokens.length > 0)
      await eventually(() => Promise.resolve(Math.min(...engines.told) > 1 || null), toldWithinMs)
    const inOrder = router.order.map((engine) => heldTokens[engine]).filter((tokens) => tokens !== undefined)
    const theirs = sharesOf(await router.play(steps), router.order)
    const ours = sharesOf(
      ownChoices(one.ours, workers, steps, { random: seededRandom(seed), heldTokens: inOrder }),
      router.order,
    )
    for (const [name, found] of [
      ['theirs', theirs],
      ['ours', ours],
    ] as const) {
      const worst = Math.max(...shares.map((share, engine) => Math.abs((found[engine] ?? 0) - share)))
      report.check(
        `${title}, ${name}`,
        worst < shareTolerance,
        `${found.map((share) => share.toFixed(3)).join(', ')}; by the rule ${shares.map((share) => share.toFixed(3)).join(', ')}`,
      )
    }
  } finally {
    engines.close()
    processes.endAll()
  }
}

async function compareKeys(
  one: KeyCase,
  seed: number,
  report: Report,
  programs: string,
  processes: Processes,
): Promise<void> {
  const engines = await HeldEngines.start(one.workers)
  try {
    const name = one.title.replaceAll(/\W+/g, '-')
    const router = await SglangRouter.start(programs, one.theirs, engines, processes, name)
    const theirs = await router.play(one.steps)
    const ours = ownChoices(one.ours, one.workers, one.steps, { random: seededRandom(seed) })
    for (const [whose, chosen] of [
      ['theirs', theirs],
      ['ours', ours],
    ] as const)
      report.equal(`${one.title}, ${whose}: requests against the rule`, strayRequests(one, chosen), 0)
  } finally {
    engines.close()
    processes.endAll()
  }
}

/** Requests that left the worker of their key, or whose new key went to a worker with more keys in flight than another. */
function strayRequests({ steps, workers, byGroups }: KeyCase, chosen: readonly number[]): number {
  const home = new Map<string, number>()
  const open = new Map<string, { readonly place: number; readonly key: string }>()
  let sent = 0
  let stray = 0
  for (const step of steps) {
    if (step.kind === 'finish') open.delete(step.name)
    if (step.kind !== 'send') continue
    const place = chosen[sent++] ?? -1
    const key = step.headers?.[routingKeyHeader] ?? ''
    const groups = Array.from({ length: workers }, () => new Set<string>())
    for (const request of open.values()) groups[request.place]?.add(request.key)
    const fewest = Math.min(...groups.map(({ size }) => size))
    const isNew = !home.has(key)
    if (isNew ? byGroups && groups[place]?.size !== fewest : home.get(key) !== place) stray++
    if (isNew) home.set(key, place)
    open.set(step.name, { place, key })
  }
  return stray
}

/** Share of the requests that each engine got. */
function sharesOf(places: readonly number[], order: readonly number[]): number[] {
  const counts = order.map(() => 0)
  for (const place of places) {
    const engine = order[place] ?? 0
    counts[engine] = (counts[engine] ?? 0) + 1
  }
  return counts.map((count) => count / places.length)
}
