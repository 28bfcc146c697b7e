import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { RouterError } from '../errors.ts'
import { chartSvg } from '../plot/chart.ts'
import { page } from '../plot/page.ts'
import { readTrace } from '../replay/traces/read.ts'
import { blockIds } from '../replay/traces/trace.ts'
import { inOrderOfArrival } from '../sizing/arrivals.ts'
import { ReuseCurve } from '../sizing/reuse-curve.ts'
import { sizeModel, type Sizing } from '../sizing/sizing.ts'
import type { SizingRequest, Workload } from '../sizing/sizing-request.ts'
import { curvePoints } from '../sizing/tiers.ts'
import type { Command } from './command.ts'
import { sizingCharts, sizingSections } from './size/charts.ts'
import { sizeFlags, sizeUsage, type SizeFlags } from './size/flags.ts'
import { sizingTable } from './size/table.ts'

/** Shares of what is possible, where no hit ratio is asked for. */
const defaultShares = [0.5, 0.75, 0.9, 0.95, 0.99]

export const size: Command = {
  name: 'size',
  summary: "tell what a model's KV cache takes, what GPUs have room for and what a workload reuses",
  usage: sizeUsage,
  async run(argv, io) {
    const flags = sizeFlags(argv)
    const workload = flags.trace === null ? undefined : await readWorkload(flags.trace)
    const request: SizingRequest = { ...flags.request, ...(workload === undefined ? {} : { workload }) }
    const sizing = sizeModel(request)
    const table = sizingTable(request, sizing)
    if (flags.outDirectory !== undefined) writePlots(flags.outDirectory, request, sizing, table, argv)
    io.out(flags.json ? JSON.stringify(sizingJson(request, sizing), null, 2) : table)
    return 0
  },
}

async function readWorkload({
  format,
  hitRatios,
  path,
  tiers,
  users,
}: NonNullable<SizeFlags['trace']>): Promise<Workload> {
  const trace = await readTrace(path, format === undefined ? {} : { format })
  const curve = ReuseCurve.of(inOrderOfArrival(trace.sessions, users), ({ blocks }) => blockIds(blocks))
  // A hair less, so that a share of what is possible is possible.
  const wanted = hitRatios ?? defaultShares.map((share) => share * curve.idealHitRatio * (1 - 1e-12))
  const isOpen = trace.sessions.every(({ startMs }) => startMs !== null)
  return {
    name: trace.name,
    curve,
    blockTokens: trace.blockTokens,
    hitRatios: wanted,
    ...(isOpen ? {} : { users }),
    ...tiers,
  }
}

function writePlots(
  directory: string,
  request: SizingRequest,
  sizing: Sizing,
  table: string,
  argv: readonly string[],
): void {
  const charts = sizingCharts(request, sizing)
  try {
    mkdirSync(directory, { recursive: true })
    for (const { chart, name } of charts) writeFileSync(join(directory, `${name}.svg`), chartSvg(chart))
    const sections = sizingSections(charts, table, `warmroute size ${argv.join(' ')}`)
    writeFileSync(join(directory, 'sizing.html'), page(`Sizing: ${request.model.modelType}`, sections))
  } catch (cause) {
    throw new RouterError('CONFIG_UNREADABLE', `Cannot write to ${directory}: ${(cause as Error).message}`)
  }
}

/** The sizing with what it was asked for; of the curve its points. */
function sizingJson({ model, workload, ...asked }: SizingRequest, sizing: Sizing): unknown {
  const { layers, modelType, weightFormat } = model
  const reuse =
    workload === undefined
      ? {}
      : {
          workload: {
            name: workload.name,
            requests: workload.curve.requests,
            blocks: workload.curve.blocks,
            distinctBlocks: workload.curve.distinctBlocks,
            blockTokens: workload.blockTokens,
            idealHitRatio: workload.curve.idealHitRatio,
            points: curvePoints(workload.curve, workload.blockTokens),
          },
        }
  return { asked: { modelType, layers, weightFormat: weightFormat?.name ?? null, ...asked }, ...sizing, ...reuse }
}
