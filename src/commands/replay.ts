import { mkdirSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { RouterError } from '../errors.ts'
import { leftOut } from '../replay/arrivals.ts'
import { loadOf, type Player } from '../replay/job.ts'
import { playPlan, type PlayedPlan, type ReplayPlan } from '../replay/plan.ts'
import { ReplayPool } from '../replay/pool.ts'
import { RealTimePlayer } from '../replay/real-time/player.ts'
import { replayCsv, replayJson, replayPage, replayTable } from '../replay/report.ts'
import { readTrace } from '../replay/traces/read.ts'
import { traceFigures, type Trace } from '../replay/traces/trace.ts'
import type { Command, CommandIo } from './command.ts'
import { ProgressLine } from './progress-line.ts'
import { Given, optionLines, replayOptions, type Option } from './replay-options.ts'
import { planOf } from './replay-plan.ts'
import { planInRealTime, realTimeOf, withOptionalUrl } from './replay-real-time.ts'

export const replay: Command = {
  name: 'replay',
  summary: 'play recorded traffic against simulated engines and compare policies',
  usage: `warmroute replay TRACE [options]\n\n${optionLines().join('\n')}`,
  async run(argv, io) {
    const { values, positionals } = parseArgs({
      args: withOptionalUrl(argv),
      options: Object.fromEntries(
        Object.entries<Option>(replayOptions).map(([name, { value, multiple = false }]) => [
          name,
          { type: value === undefined ? ('boolean' as const) : ('string' as const), multiple },
        ]),
      ),
      allowPositionals: true,
    })
    const [path, ...rest] = positionals
    if (path === undefined || rest.length > 0)
      throw new RouterError('CONFIG_INVALID', 'replay takes one trace: warmroute replay TRACE [--policies a,b,c]')
    return play(path, new Given(values), io)
  },
}

async function play(path: string, given: Given, io: CommandIo): Promise<number> {
  const read = given.defined({
    format: given.text('format'),
    model: given.text('model'),
    mostSessions: given.number('sessions', 1),
  })
  const trace = await readTrace(path, read)
  const realTime = await realTimeOf(given, io.environment)
  const plan = realTime === null ? planOf(trace, given) : planInRealTime(planOf(trace, given), realTime, given)
  tellLeftOut(trace, plan, io)
  const runs = plan.policies.length * plan.loads.length * plan.seeds.length
  const progress = new ProgressLine(io, runs)
  const plugins = given.list('plugin').map((file) => resolve(file))
  const player: Player =
    realTime === null
      ? new ReplayPool({
          ...{ path, read, plugins: plugins.map((file) => pathToFileURL(file).href) },
          threads: Math.min(runs, given.number('threads', 1) ?? availableParallelism()),
        })
      : new RealTimePlayer({
          ...{ ...realTime, trace, plugins, environment: io.environment },
          onProgress: (_, { nowMs, answered }) =>
            progress.within(`${answered} requests in ${Math.round(nowMs / 1000)} s of this one`),
        })
  const end = { isAsked: false }
  void io.ended.then(() => {
    end.isAsked = true
    player.stop()
  })
  try {
    const result = await playPlan(plan, async (job) => {
      const done = await player.run(job)
      progress.done()
      return done
    })
    progress.clear()
    for (const note of player.notes ?? []) io.error(`warmroute replay: ${note}`)
    if (end.isAsked) io.error('warmroute replay: ended early; these are the figures of what was played until then')
    if (given.flag('json')) io.out(replayJson(plan, result))
    else io.out(given.flag('csv') ? replayCsv(plan, result) : replayTable(plan, result))
    const folder = given.text('out')
    if (folder !== undefined) write(folder, plan, result, trace.name, io)
    return end.isAsked ? 130 : 0
  } finally {
    progress.clear()
    await player.close()
  }
}

/** What no cache can hold no engine can serve. */
function tellLeftOut(trace: Trace, { base, realTime }: ReplayPlan, io: CommandIo): void {
  const { mostTokens } = loadOf(base)
  const out = leftOut(trace, mostTokens)
  if (out === 0) return
  const { requests } = traceFigures(trace)
  const isOurs = (realTime?.url ?? null) === null
  const limit = isOurs ? `a cache of ${mostTokens} tokens` : `the ${mostTokens} tokens that the model takes`
  const told = `${out} of ${requests} requests are longer than ${limit}, or come after one that is`
  if (out === requests) {
    const advice = isOurs ? '; give --cache-blocks or a larger --cache-share' : ''
    throw new RouterError('CONFIG_INVALID', `${told}: nothing is left${advice}`)
  }
  io.error(`warmroute replay: ${told}; they are left out`)
}

function write(folder: string, plan: ReplayPlan, result: PlayedPlan, name: string, io: CommandIo): void {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'index.html'), replayPage(plan, result, name))
  writeFileSync(join(folder, 'results.json'), replayJson(plan, result))
  writeFileSync(join(folder, 'results.csv'), replayCsv(plan, result))
  io.error(`Written to ${folder}: index.html, results.json, results.csv`)
}
