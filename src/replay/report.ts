import type { ChartOptions, Point } from '../plot/chart.ts'
import { page, type Section } from '../plot/page.ts'
import type { PlayedLoad, PlayedPlan, ReplayPlan } from './plan.ts'
import { estimate, meanOf, pairedDifference } from './statistics.ts'
import type { ReplayResult } from './summary.ts'

interface Column {
  readonly name: string
  readonly of: (result: ReplayResult, plan: ReplayPlan) => number
}

const giga = 1e9

/** What is told of each policy and load, each the mean over the seeds. */
const columns: readonly Column[] = [
  { name: 'in SLO', of: ({ inSlo }) => inSlo },
  { name: 'requests/s per worker', of: ({ requestsPerSecond }, { base }) => requestsPerSecond / base.workers },
  { name: 'good requests/s', of: ({ goodRequestsPerSecond }) => goodRequestsPerSecond },
  { name: 'hit ratio', of: ({ hitRatio }) => hitRatio },
  { name: 'TTFT mean ms', of: ({ ttftMs }) => ttftMs.mean },
  { name: 'TTFT p50 ms', of: ({ ttftMs }) => ttftMs.p50 },
  { name: 'TTFT p90 ms', of: ({ ttftMs }) => ttftMs.p90 },
  { name: 'TTFT p99 ms', of: ({ ttftMs }) => ttftMs.p99 },
  { name: 'ITL mean ms', of: ({ itlMs }) => itlMs.mean },
  { name: 'ITL p99 ms', of: ({ itlMs }) => itlMs.p99 },
  { name: 'tokens/s per user', of: ({ tokensPerSecondPerUser }) => tokensPerSecondPerUser },
  { name: 'balance', of: ({ balance }) => balance },
  { name: 'timed out', of: ({ timedOut }) => timedOut },
  { name: 'requests', of: ({ requests }) => requests },
  { name: 'hit ratio of one pooled cache', of: ({ bounds }) => bounds?.pooled ?? NaN },
  { name: 'hit ratio of an endless cache', of: ({ bounds }) => bounds?.infinite ?? NaN },
  { name: 'GB from host', of: ({ moved }) => (moved?.host ?? 0) / giga },
  { name: 'GB from disk', of: ({ moved }) => (moved?.disk ?? 0) / giga },
  { name: 'GB from the shared store', of: ({ moved }) => (moved?.shared ?? 0) / giga },
  { name: 'GB between nodes', of: ({ moved }) => (moved?.betweenNodes ?? 0) / giga },
  { name: 'refused', of: ({ refused }) => refused },
  { name: 'failed', of: ({ failed }) => failed },
]

const shown = [
  'in SLO',
  'requests/s per worker',
  'hit ratio',
  'TTFT mean ms',
  'TTFT p50 ms',
  'TTFT p90 ms',
  'TTFT p99 ms',
]
const shownToo = ['ITL mean ms', 'tokens/s per user', 'balance', 'timed out']

const shownOfTiers = ['GB from host', 'GB from disk', 'GB from the shared store', 'GB between nodes']

const shownOfRealTime = ['refused', 'failed']

const shownOfBounds = ['hit ratio of one pooled cache', 'hit ratio of an endless cache']

const loadTitle = (plan: ReplayPlan): string =>
  plan.loadKind === 'users' ? 'users at once' : 'times the recorded rate'

/** For a terminal: a line a policy and load, then what the limits say. */
export function replayTable(plan: ReplayPlan, result: PlayedPlan): string {
  const moved = plan.policies.some(({ tiers }) => tiers !== undefined) ? shownOfTiers : []
  const bounds = plan.base.tellsBounds === true ? shownOfBounds : []
  const overHttp = plan.realTime === undefined ? [] : shownOfRealTime
  const told = [...shown, ...bounds, ...shownToo, ...moved, ...overHttp].flatMap(
    (name) => columns.find((column) => column.name === name) ?? [],
  )
  const head = ['policy', plan.loadKind, ...told.map(({ name }) => name), '± of mean TTFT']
  const rows = result.played.map((one) => [
    one.runs.every(({ complete }) => complete) ? one.policy : `${one.policy} (cut short)`,
    plain(one.load),
    ...told.map((column) => plain(mean(one, column, plan))),
    plain(estimate(ttftOf(one)).halfWidth),
  ])
  return [...aligned([head, ...rows]), ...limitLines(plan, result)].join('\n')
}

/** A head and a line a policy, load and seed. */
export function replayCsv(plan: ReplayPlan, { played }: PlayedPlan): string {
  const head = ['policy', plan.loadKind, 'seed', ...columns.map(({ name }) => name)]
  const rows = played.flatMap(({ policy, load, runs }) =>
    runs.map((run, index) => [policy, load, plan.seeds[index] ?? '', ...columns.map(({ of }) => of(run, plan))]),
  )
  return [head, ...rows].map((row) => `${row.map(csvCell).join(',')}\n`).join('')
}

export function replayJson(plan: ReplayPlan, result: PlayedPlan): string {
  return `${JSON.stringify({ plan, ...result }, null, 2)}\n`
}

export function replayPage(plan: ReplayPlan, result: PlayedPlan, trace: string): string {
  const text = [
    `${groundOf(plan)}, ${plan.seeds.length} seeds; bars and ± are 95 % confidence intervals (Student’s t).`,
    ...limitLines(plan, result),
  ]
  const head = ['policy', loadTitle(plan), ...columns.map(({ name }) => name)]
  const rows = result.played.map((one) => [
    one.policy,
    one.load,
    ...columns.map((column) => Number(mean(one, column, plan).toPrecision(4))),
  ])
  const sections: Section[] = [
    { heading: 'Comparison', text, tables: [{ columns: head, rows }, differences(plan, result)] },
    { heading: 'Plots', charts: replayCharts(plan, result) },
  ]
  return page(`Replay of ${trace}`, sections)
}

function groundOf({ base, realTime }: ReplayPlan): string {
  const { workers, capacityBlocks, calibration } = base
  const engines = `${workers} workers with caches of ${capacityBlocks} blocks of ${calibration.blockSize} tokens`
  if (realTime === undefined) return engines
  const { url, speed } = realTime
  const pace = speed === 1 ? 'in real time' : `in real time, ${speed} times as fast`
  return url === null ? `${engines}, over HTTP ${pace}` : `Over HTTP at ${url}, ${pace}`
}

/** A curve a policy over the loads. */
export function replayCharts(plan: ReplayPlan, { played }: PlayedPlan): ChartOptions[] {
  const series = (x: (one: PlayedLoad) => number, of: (run: ReplayResult) => number) =>
    plan.policies.map(({ name }) => ({
      name,
      points: played.filter(({ policy }) => policy === name).map((one): Point => withRange(x(one), one.runs.map(of))),
    }))
  const load = ({ load }: PlayedLoad): number => load
  const perUser = ({ runs }: PlayedLoad): number =>
    meanOf(runs.map(({ tokensPerSecondPerUser }) => tokensPerSecondPerUser))
  const workers = plan.base.workers
  return [
    {
      title: 'Cost and performance: requests per second of a worker, over the speed of answers',
      x: { title: 'tokens per second of a user' },
      y: { title: 'requests per second of a worker' },
      series: series(perUser, ({ goodRequestsPerSecond }) => goodRequestsPerSecond / workers),
    },
    {
      title: 'Mean time to first token',
      x: { title: loadTitle(plan) },
      y: { title: 'ms' },
      series: series(load, ({ ttftMs }) => ttftMs.mean),
    },
    {
      title: 'Requests within the SLO',
      x: { title: loadTitle(plan) },
      y: { title: 'share' },
      series: series(load, ({ inSlo }) => inSlo),
      levels: [{ axis: 'y', at: 0.95, label: '95 %' }],
    },
    {
      title: 'Hit ratio',
      x: { title: loadTitle(plan) },
      y: { title: 'cached prompt tokens, share' },
      series: series(load, ({ hitRatio }) => hitRatio),
    },
  ]
}

/** Mean TTFT of each policy beyond that of the first one, seed by seed. */
function differences(plan: ReplayPlan, { played }: PlayedPlan) {
  const [first] = plan.policies
  const rows = played
    .filter(({ policy }) => policy !== first?.name)
    .map((one) => {
      const base = played.find(({ policy, load }) => policy === first?.name && load === one.load)
      const { mean, halfWidth } = pairedDifference(ttftOf(one), base === undefined ? [] : ttftOf(base))
      return [one.policy, one.load, Number(mean.toPrecision(4)), Number(halfWidth.toPrecision(4))]
    })
  return {
    caption: `Mean TTFT beyond that of ${first?.name ?? ''}, paired by seed`,
    columns: ['policy', loadTitle(plan), 'ms', '±'],
    rows,
  }
}

function limitLines(plan: ReplayPlan, { limits }: PlayedPlan): string[] {
  const [first] = limits
  if (first === undefined) return []
  return limits.map(({ policy, load }) => {
    const saved = first.load === 0 ? 0 : 1 - load / first.load
    const told =
      policy === first.policy ? '' : `; for the same load ${first.policy} needs ${Math.round(saved * 100)} % fewer GPUs`
    return `${policy} keeps 95 % within the SLO up to ${plain(load)} ${loadTitle(plan)}${told}`
  })
}

function ttftOf({ runs }: PlayedLoad): number[] {
  return runs.map(({ ttftMs }) => ttftMs.mean)
}

function mean({ runs }: PlayedLoad, { of }: Column, plan: ReplayPlan): number {
  return meanOf(runs.map((run) => of(run, plan)))
}

function withRange(x: number, samples: readonly number[]): Point {
  const { mean, halfWidth } = estimate(samples)
  if (!Number.isFinite(halfWidth)) return { x, y: mean }
  return { x, y: mean, yRange: [Math.max(0, mean - halfWidth), mean + halfWidth] }
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? []
  return rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  '),
  )
}

function plain(value: number): string {
  return Number.isFinite(value) ? String(Number(value.toPrecision(4))) : '–'
}

function csvCell(value: string | number): string {
  if (Number.isNaN(value)) return ''
  return typeof value === 'string' && /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : String(value)
}
