import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { folder, installDynamo } from '../engines/mocker.ts'
import { Processes } from '../engines/processes.ts'
import { root } from '../engines/python.ts'
import type { Report } from '../engines/report.ts'
import { dynamoCases, temperature, temperatureCase, type DynamoCase } from './dynamo-cases.ts'
import type { KeptCase, KeptStep } from './dynamo-log.ts'
import { DynamoRun, tieWithin, type Compared } from './dynamo-run.ts'
import { SelectService } from './select-service.ts'
import type { ParitySuite } from './suite.ts'
import { Warmroute } from './warmroute.ts'

const leastShare = 0.995
/** Differences told of each case. */
const shown = 10
/** Of each case without vanishing blocks, where a fixture is written. */
const keptStates = 60
const fixture = join(root, 'test', 'fixtures', 'parity', 'dynamo.json')
const statesBeforeSampling = 60
const samples = 4000
const sampledPrompts = 3
/** Four standard deviations of the frequency of an event that happens half of the time. */
const mostOff = 4 * Math.sqrt(0.25 / samples)

interface Place {
  readonly programs: string
  readonly processes: Processes
  readonly seed: number
}

interface Row {
  readonly name: string
  readonly counts: readonly number[]
}

/** The last three count states: another cost of the chosen worker, our map or its index not as the engines are. */
const columns = ['states', 'one best', 'equal', 'ties', 'different', 'other cost', 'we err', 'it errs']

/** The profile `dynamo` before NVIDIA Dynamo's select service. */
export const dynamoParity: ParitySuite = async (report, { seed, states, keep }) => {
  const programs = installDynamo((line) => report.say(line))
  const processes = new Processes(join(folder, 'parity.json'))
  const rows: Row[] = []
  const kept: KeptCase[] = []
  for (const [i, each] of dynamoCases.entries()) {
    const place = { programs, processes, seed: seed * 1000 + i }
    const row = await withRun(place, each, async (run, service) => {
      const compared: Compared[] = []
      for (let left = Math.max(1, Math.round(states * each.share)); left > 0; left--) compared.push(await run.next())
      const costs = service.costs()
      if (!each.run.drops) kept.push(keptCase(each, run, costs))
      return compare(report, each.name, compared, costs)
    })
    rows.push(row)
  }
  const all = columns.map((_, column) => rows.reduce((sum, { counts }) => sum + (counts[column] as number), 0))
  tell(report, [...rows, { name: 'all', counts: all }])
  const [, decided = 0, equal = 0, ties = 0] = all
  const share = equal / decided
  report.check(
    `the same worker in at least 99.5 % of the states with one best one, ${ties} ties apart`,
    share >= leastShare,
    `${equal} of ${decided}, ${(100 * share).toFixed(2)} %`,
  )
  report.equal('states in which our map is not as the engines are', all[6], 0)
  await withRun({ programs, processes, seed }, temperatureCase, (run) => compareFrequencies(report, run))
  if (keep) writeFileSync(fixture, `${JSON.stringify({ version: '1.6.1', seed, cases: kept })}\n`)
}

async function withRun<Result>(
  { programs, processes, seed }: Place,
  { name, parameters, environment, run: options }: DynamoCase,
  use: (run: DynamoRun, service: SelectService) => Promise<Result>,
): Promise<Result> {
  const label = name.replaceAll(/[^a-z0-9]+/g, '-')
  const service = await SelectService.start({ programs, folder, name: label, environment, processes })
  const profile = { name: 'dynamo', scorers: [{ type: 'dynamo-cost', parameters }], picker: { type: 'softmax' } }
  const ours = await Warmroute.of(profile, options.workers, options.blockSize, seed)
  const run = new DynamoRun({ ...options, seed }, service, ours)
  await run.open()
  const result = await use(run, service)
  await run.close()
  service.stop()
  return result
}

function compare(report: Report, name: string, compared: readonly Compared[], costs: ReadonlyMap<string, number>): Row {
  const decided = compared.filter(({ best }) => best.length === 1)
  const equal = decided.filter(({ best, theirs }) => best[0] === theirs)
  const ties = compared.filter(({ best }) => best.length > 1)
  const different = compared.filter(({ best, theirs }) => !best.includes(theirs))
  const weErr = compared.filter(({ weSee }) => !weSee)
  const itErrs = compared.filter(({ itSees }) => !itSees)
  const otherCost = compared.filter(({ id, ours, theirs }) => {
    const cost = costs.get(id)
    return cost === undefined || Math.abs(cost - (ours.costs[theirs] as number)) > tieWithin
  })
  const byIndex = different.filter(({ itSees }) => !itSees).length
  report.say(`${name}: ${different.length} of ${compared.length} states different, in ${byIndex} its index is wrong`)
  for (const { id, promptTokens, ours, theirs, theirMatch, itSees } of different.slice(0, shown)) {
    const figures = [ours.worker, theirs].map((worker) => {
      const match = [ours.held[worker], theirMatch[worker]].map((held) => (held === undefined ? '' : textOf(held)))
      return `${worker} (cost ${ours.costs[worker]}; ${[...new Set(match)].join(', to it ')})`
    })
    report.say(`  ${id}, ${promptTokens} tokens: we choose ${figures.join(', it chooses ')}, its cost ${costs.get(id)}`)
    report.say(itSees ? '    both see what the engines hold' : '    its index is not as the engines are')
  }
  return {
    name,
    counts: [compared, decided, equal, ties, different, otherCost, weErr, itErrs].map(({ length }) => length),
  }
}

function textOf({ gpu, host, disk }: Compared['theirMatch'][number]): string {
  return `${gpu} + ${host} + ${disk} blocks`
}

function tell(report: Report, rows: readonly Row[]): void {
  const line = (name: string, cells: readonly (string | number)[]): void =>
    report.say(name.padEnd(26) + cells.map((cell) => String(cell).padStart(11)).join(''))
  line('case', columns)
  for (const { name, counts } of rows) line(name, counts)
}

async function compareFrequencies(report: Report, run: DynamoRun): Promise<void> {
  for (let left = statesBeforeSampling; left > 0; left--) await run.next()
  for (let left = sampledPrompts; left > 0; left--) {
    const { counts, costs } = await run.sample(samples)
    const [least, most] = [Math.min(...costs), Math.max(...costs)]
    const weights = costs.map((cost) => Math.exp(-(cost - least) / ((most - least) * temperature)))
    const sum = weights.reduce((total, weight) => total + weight, 0)
    const off = Math.max(...weights.map((weight, i) => Math.abs(weight / sum - (counts[i] as number) / samples)))
    const told = counts.map((count) => (count / samples).toFixed(3)).join(' ')
    report.check(
      `at temperature ${temperature} its ${samples} choices are spread as our probabilities are`,
      off < mostOff,
      `${told}; at most ${off.toFixed(4)} off`,
    )
  }
}

/** With the costs that the service itself names. */
function keptCase(
  { name, parameters, run: { workers, blockSize } }: DynamoCase,
  { log }: DynamoRun,
  costs: ReadonlyMap<string, number>,
): KeptCase {
  let asks = 0
  const steps = log.steps.flatMap((step): KeptStep[] => {
    if (asks === keptStates) return []
    if (step[0] !== 'ask') return [step]
    asks++
    const [kind, id, promptTokens, blocks, held, chosen, cost] = step
    return [[kind, id, promptTokens, blocks, held, chosen, costs.get(id) ?? cost]]
  })
  return { name, parameters, workers, blockSize, steps }
}
