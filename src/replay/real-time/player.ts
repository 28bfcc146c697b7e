import { monitorEventLoopDelay } from 'node:perf_hooks'
import { defaultBetweenUsersMs } from '../arrivals.ts'
import { loadOf, resultOf, type Player, type ReplayJob } from '../job.ts'
import type { Progress } from '../replay.ts'
import type { ReplayResult } from '../summary.ts'
import type { Trace } from '../traces/trace.ts'
import type { Environment } from './child.ts'
import { Endpoint } from './endpoint.ts'
import { Pace } from './pace.ts'
import { play } from './play.ts'
import { Stage, stageModel } from './stage.ts'
import { Troubles } from './troubles.ts'

export interface RealTimeOptions {
  readonly trace: Trace
  /** How many times as fast as recorded. */
  readonly speed: number
  /** What is running already; null: engines and a router are started for each run. */
  readonly target: Target | null
  readonly plugins?: readonly string[]
  readonly environment: Environment
  readonly onProgress?: (job: ReplayJob, progress: Progress) => void
}

export interface Target {
  readonly url: string
  readonly model: string
  readonly apiKey?: string
}

const defaultTimeoutMs = 60_000
/** Between two looks at how late this process is. */
const lateResolutionMs = 10

/** Plays jobs over HTTP, one after the other. */
export class RealTimePlayer implements Player {
  readonly #options: RealTimeOptions
  readonly #ended = new AbortController()
  readonly #troubles = new Troubles()
  #last: Promise<unknown> = Promise.resolve()
  #lateMs = 0

  constructor(options: RealTimeOptions) {
    this.#options = options
  }

  run(job: ReplayJob): Promise<ReplayResult> {
    const result = this.#last.then(() => this.#play(job))
    this.#last = result.catch(() => this.stop())
    return result
  }

  stop(): void {
    this.#ended.abort()
  }

  async close(): Promise<void> {
    this.stop()
    await this.#last
  }

  /** What went wrong in all runs, and how well this process kept the time. */
  get notes(): readonly string[] {
    const late = `this process was up to ${Math.ceil(this.#lateMs)} ms late with what it sent and measured (p99)`
    return [...this.#troubles.lines, late]
  }

  async #play(job: ReplayJob): Promise<ReplayResult> {
    const { trace, target, speed, plugins = [], environment } = this.#options
    if (this.#ended.signal.aborted) return resultOf(job, nothing, trace)
    // A running endpoint computes at its own pace, so that there only pauses are shorter.
    if (target !== null)
      return this.#playAt(job.load === undefined ? job : { ...job, load: hastened(job, speed) }, target)
    const stage = await Stage.open({ job, speed, plugins, environment })
    try {
      return await this.#playAt(job, { url: stage.url, model: stageModel }, stage)
    } finally {
      await stage.close()
    }
  }

  async #playAt(job: ReplayJob, target: Target, stage?: Stage): Promise<ReplayResult> {
    const { trace, speed, onProgress } = this.#options
    const clock = (): number => performance.now()
    const endpoint = new Endpoint({ ...target, clock })
    const pace = new Pace(stage === undefined ? 1 : speed, clock)
    const lateness = monitorEventLoopDelay({ resolution: lateResolutionMs })
    lateness.enable()
    try {
      const played = await play({
        ...{ trace, load: loadOf(job), seed: job.seed, timeoutMs: job.timeoutMs ?? defaultTimeoutMs },
        ...{ endpoint, pace, workers: stage?.workers ?? [], troubles: this.#troubles, signal: this.#ended.signal },
        ...(onProgress === undefined ? {} : { onProgress: (progress: Progress) => onProgress(job, progress) }),
      })
      const busyMs = (await stage?.busyMs()) ?? []
      return resultOf(job, { ...played, busyMs }, trace)
    } finally {
      lateness.disable()
      this.#lateMs = Math.max(this.#lateMs, (lateness.percentile(99) / 1e6 - lateResolutionMs) * pace.speed)
      endpoint.close()
    }
  }
}

const nothing = { rows: [], complete: false, busyMs: [], endedMs: 0 }

/** All pauses and times of arrival so many times as short. */
function hastened({ load = {} }: ReplayJob, speed: number): NonNullable<ReplayJob['load']> {
  const { rate = 1, thinkScale = 1, thinkCapMs = Infinity, betweenUsersMs = defaultBetweenUsersMs } = load
  const pauses = { thinkScale: thinkScale / speed, thinkCapMs: thinkCapMs / speed }
  return { ...load, ...pauses, rate: rate * speed, betweenUsersMs: betweenUsersMs / speed }
}
