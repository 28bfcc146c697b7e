import type { ChartOptions, Level } from '../../plot/chart.ts'
import type { Section } from '../../plot/page.ts'
import { concurrencyLimit } from '../../sizing/capacity.ts'
import type { Sizing } from '../../sizing/sizing.ts'
import type { SizingRequest } from '../../sizing/sizing-request.ts'
import { curvePoints } from '../../sizing/tiers.ts'
import { bytesText, countText } from './amount.ts'

export interface NamedChart {
  /** Of the SVG file, without its ending. */
  readonly name: string
  readonly chart: ChartOptions
}

/** How many requests of each length fill a worker, and how often blocks are found in caches of each size. */
export function sizingCharts(request: SizingRequest, sizing: Sizing): NamedChart[] {
  const reuse = reuseChart(request, sizing)
  return [{ name: 'concurrency', chart: concurrencyChart(request, sizing) }, ...(reuse === null ? [] : [reuse])]
}

function concurrencyChart(
  { contextTokens, maxTokens, parallelism, prefixCaching }: SizingRequest,
  { capacity, contexts, inFlightTokens, layout }: Sizing,
): ChartOptions {
  const shortest = Math.min(1024, maxTokens)
  const lengths = Array.from({ length: 49 }, (_, step) => Math.round(shortest * (maxTokens / shortest) ** (step / 48)))
  const options = { inFlightTokens, decodeContext: parallelism.decodeContext, prefixCaching }
  const line = [...new Set([...lengths, ...contextTokens])].sort((one, other) => one - other)
  return {
    title: 'Requests at which one worker is full',
    x: { title: 'tokens a request', scale: 'log2', format: lengthText },
    y: { title: 'requests at once', scale: 'log' },
    series: [
      {
        name: 'at any length',
        points: line.map((tokens) => ({
          x: tokens,
          y: concurrencyLimit(layout, capacity.usableBlocks, tokens, options),
        })),
        marks: false,
      },
      {
        name: 'lengths of the table',
        points: contexts.map(({ tokens, workerRequests }) => ({ x: tokens, y: workerRequests })),
        line: 'none',
      },
    ],
  }
}

function reuseChart({ workers, workload }: SizingRequest, { tierReach, tokenBytesOfModel }: Sizing): NamedChart | null {
  if (workload === undefined) return null
  const { blockTokens, curve, name } = workload
  const bytes = (tokens: number) => tokens * tokenBytesOfModel
  const levels = tierReach.map(({ tier, tokens }): Level => ({
    axis: 'x',
    at: bytes(tokens),
    label: tier === 'gpu' ? `GPUs of ${workers}` : `+ ${tier}`,
  }))
  const chart: ChartOptions = {
    title: `Hit ratio by what the fleet keeps: ${name}`,
    x: { title: 'KV blocks kept', scale: 'log2', format: bytesText },
    y: { title: 'share of blocks found', from: 0, to: 1, format: (share) => `${Math.round(share * 100)} %` },
    levels: [...levels, { axis: 'y', at: curve.idealHitRatio, label: 'a cache without end' }],
    series: [
      {
        name: 'hit ratio',
        points: curvePoints(curve, blockTokens)
          .filter(({ hitRatio }) => hitRatio > curve.idealHitRatio / 200)
          .map(({ hitRatio, tokens }) => ({ x: bytes(tokens), y: hitRatio })),
        marks: false,
      },
    ],
  }
  return { name: 'hit-ratio', chart }
}

function lengthText(tokens: number): string {
  return tokens >= 1024 && tokens % 1024 === 0 ? `${tokens / 1024}Ki` : countText(tokens)
}

/** The page: the plots, and the table as it is printed. */
export function sizingSections(charts: readonly NamedChart[], table: string, command: string): Section[] {
  return [
    { heading: 'Plots', charts: charts.map(({ chart }) => chart) },
    { heading: 'Figures', text: [command], listings: [table] },
  ]
}
