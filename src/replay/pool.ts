import { Worker } from 'node:worker_threads'
import { RouterError, type ErrorCode } from '../errors.ts'
import type { Player, ReplayJob } from './job.ts'
import type { Progress } from './replay.ts'
import type { ReplayResult } from './summary.ts'
import type { ReadTraceOptions } from './traces/read.ts'

export interface PoolOptions {
  readonly path: string
  readonly read?: ReadTraceOptions
  /** URLs of modules that export policies. */
  readonly plugins?: readonly string[]
  readonly threads: number
  readonly onProgress?: (job: ReplayJob, progress: Progress) => void
}

export interface ThreadSetup {
  readonly path: string
  readonly read: ReadTraceOptions
  readonly plugins: readonly string[]
  /** One word: not 0 once the runs are to end. */
  readonly stop: SharedArrayBuffer
}

export type ThreadAnswer =
  | { readonly kind: 'done'; readonly result: ReplayResult }
  | { readonly kind: 'progress'; readonly progress: Progress }
  | { readonly kind: 'failed'; readonly code: ErrorCode | null; readonly message: string }

interface Waiting {
  readonly job: ReplayJob
  readonly resolve: (result: ReplayResult) => void
  readonly reject: (error: unknown) => void
}

/** Runs replays on threads of their own, each with the trace read once. The order of the answers is that of the calls. */
export class ReplayPool implements Player {
  readonly #options: PoolOptions
  readonly #stop = new SharedArrayBuffer(4)
  readonly #idle: Worker[] = []
  readonly #all: Worker[] = []
  readonly #busy = new Map<Worker, Waiting>()
  readonly #waiting: Waiting[] = []

  constructor(options: PoolOptions) {
    this.#options = options
    for (let i = 0; i < options.threads; i++) this.#start()
  }

  run(job: ReplayJob): Promise<ReplayResult> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ job, resolve, reject })
      this.#next()
    })
  }

  stop(): void {
    Atomics.store(new Int32Array(this.#stop), 0, 1)
  }

  async close(): Promise<void> {
    await Promise.all(this.#all.map((worker) => worker.terminate()))
  }

  #start(): void {
    const { path, read = {}, plugins = [] } = this.#options
    // The compiler does not rewrite this name: the thread's file has the extension that this one has (decision 27).
    const extension = import.meta.url.endsWith('.ts') ? '.ts' : '.js'
    const setup: ThreadSetup = { path, read, plugins, stop: this.#stop }
    const worker = new Worker(new URL('./replay.thread' + extension, import.meta.url), { workerData: setup })
    worker.on('message', (answer: ThreadAnswer) => this.#answered(worker, answer))
    worker.on('error', (error) => this.#busy.get(worker)?.reject(error))
    this.#all.push(worker)
    this.#idle.push(worker)
  }

  #next(): void {
    while (this.#waiting.length > 0) {
      const worker = this.#idle.pop()
      if (worker === undefined) return
      const waiting = this.#waiting.shift() as Waiting
      this.#busy.set(worker, waiting)
      worker.postMessage(waiting.job)
    }
  }

  #answered(worker: Worker, answer: ThreadAnswer): void {
    const waiting = this.#busy.get(worker)
    if (waiting === undefined) return
    if (answer.kind === 'progress') {
      this.#options.onProgress?.(waiting.job, answer.progress)
      return
    }
    this.#busy.delete(worker)
    this.#idle.push(worker)
    if (answer.kind === 'done') waiting.resolve(answer.result)
    else waiting.reject(answer.code === null ? new Error(answer.message) : new RouterError(answer.code, answer.message))
    this.#next()
  }
}
