import { Worker } from 'node:worker_threads'
import { RouterError } from '../errors.ts'
import type { Log } from '../telemetry/log.ts'
import { Affinity, beginnings, type Seen } from './affinity.ts'
import type { PromptKind } from './request.ts'
import {
  fromSentError,
  type ReadAnswer,
  type ThreadAnswer,
  type ThreadCommand,
  type ThreadJob,
  type TokenizerSource,
  type TokensAnswer,
} from './thread-messages.ts'

export interface ThreadsOptions {
  /** Threads at most; each starts when the ones before it have more than its loading time to do. */
  readonly threads: number
  /** Jobs that may wait, over all threads. */
  readonly queued: number
  /** Budget of the token caches of all threads together. */
  readonly cacheBytes: number
  readonly log: Log
}

/** A body that a thread has read and keeps for the call that tokenizes it. */
export interface Ticket {
  readonly job: number
  readonly thread: Thread
  readonly body: Uint8Array
  /** Names of its beginnings. */
  readonly names: readonly number[]
  readonly prompt: PromptKind
  /** The tokens for the pool that the conversation's last turn was for, if it was read where that turn is known. */
  readonly early: { readonly pool: string; readonly tokens: TokensAnswer } | null
}

/**
 * Our own worker threads for long prompts (decision 20). Each runs one job at a time, the shortest of its queue first, so that
 * at most `threads` of libuv's pool are ever taken by tokenizing. A conversation goes back to the thread whose cache knows it,
 * unless waiting there would take longer than tokenizing it anew elsewhere.
 */
export class TokenizerThreads {
  readonly #options: ThreadsOptions
  readonly #threads: Thread[] = []
  readonly #sources = new Map<string, TokenizerSource>()
  readonly #affinity = new Affinity(4096)
  #nextJob = 1
  #restarts = 0
  #closed = false

  constructor(options: ThreadsOptions) {
    this.#options = options
  }

  /** Every thread loads this tokenizer, also those that start later. */
  add(name: string, source: TokenizerSource): void {
    this.#sources.set(name, source)
    for (const thread of this.#threads) thread.add(name, source)
    if (this.#threads.length === 0) this.#start()
  }

  remove(name: string): void {
    this.#sources.delete(name)
    for (const thread of this.#threads) thread.remove(name)
  }

  stats(): { queued: number; threads: number; restarts: number; cacheBytes: number } {
    const sum = (of: (thread: Thread) => number): number =>
      this.#threads.reduce((total, thread) => total + of(thread), 0)
    return {
      queued: sum((thread) => thread.queued),
      threads: this.#threads.length,
      restarts: this.#restarts,
      cacheBytes: sum((thread) => thread.cacheBytes),
    }
  }

  /** @throws RouterError TOKENIZER_BUSY, TOKENIZER_FAILED, and what is wrong with the body */
  async read(body: Uint8Array, prompt: PromptKind): Promise<{ answer: ReadAnswer; ticket: Ticket }> {
    this.#admit()
    const names = beginnings(body)
    const seen = this.#affinity.find(names)
    const thread = this.#choose(body, seen)
    const pool = seen !== null && this.#threads[seen.thread] === thread ? seen.pool : null
    const job = this.#nextJob++
    const answer = await thread.run({
      costMs: body.length * (pool === null ? readMsPerByte : tokensMsPerByte * cachedShare),
      command: () => ({ kind: 'read', job, body: thread.share(body), names, pool, prompt }),
    })
    if (answer.kind !== 'read') throw new RouterError('TOKENIZER_FAILED', 'A tokenizer thread answered out of turn.')
    const early = pool === null || answer.tokens === null ? null : { pool, tokens: answer.tokens }
    return { answer, ticket: { job, thread, body, names, prompt, early } }
  }

  /** @throws RouterError TOKENIZER_BUSY, TOKENIZER_FAILED, and what is wrong with the prompt */
  async tokens(ticket: Ticket, name: string): Promise<TokensAnswer> {
    const { job, thread, body, names, prompt, early } = ticket
    const seen = { thread: this.#threads.indexOf(thread), pool: name }
    if (early?.pool === name) {
      this.#affinity.note(names, seen)
      return early.tokens
    }
    this.#admit()
    const costMs = body.length * tokensMsPerByte
    const send = (resent: boolean): Promise<ThreadAnswer['result']> =>
      thread.run({
        costMs,
        command: () => ({ kind: 'tokens', job, name, body: resent ? thread.share(body) : null, prompt }),
      })
    let answer = await send(false)
    if (answer.kind === 'gone') answer = await send(true)
    if (answer.kind !== 'tokens') throw new RouterError('TOKENIZER_FAILED', 'A tokenizer thread answered out of turn.')
    this.#affinity.note(names, seen)
    return answer
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all(this.#threads.map((thread) => thread.close()))
  }

  #admit(): void {
    if (this.#closed) throw new RouterError('TOKENIZER_FAILED', 'The tokenizer threads are shut down.')
    if (this.stats().queued >= this.#options.queued) {
      throw new RouterError(
        'TOKENIZER_BUSY',
        `${this.#options.queued} long prompts wait for a tokenizer thread already.`,
        {
          retryAfterSeconds: 1,
        },
      )
    }
  }

  /** The thread that will have this body's tokens first, by what is queued, what it may have cached, and what starting costs. */
  #choose(body: Uint8Array, seen: Seen | null): Thread {
    const costMs = body.length * tokensMsPerByte
    let best: Thread | null = null
    let bestMs = Infinity
    for (const [index, thread] of this.#threads.entries()) {
      const doneMs = thread.backlogMs + (index === seen?.thread ? costMs * cachedShare : costMs)
      if (doneMs < bestMs) {
        best = thread
        bestMs = doneMs
      }
    }
    if (best !== null && (this.#threads.length >= this.#options.threads || bestMs <= startMs + costMs)) return best
    return this.#start()
  }

  #start(): Thread {
    const thread = new Thread(Math.floor(this.#options.cacheBytes / this.#options.threads), this.#sources, (error) => {
      this.#restarts += 1
      this.#options.log.error(
        { error: error.message, restarts: this.#restarts },
        'tokenizer thread failed and was restarted',
      )
    })
    this.#threads.push(thread)
    return thread
  }
}

/** Rough costs that order the queues and choose the thread: measured with Qwen3's tokenizer on one core. */
const readMsPerByte = 0.000_005
const tokensMsPerByte = 0.000_15
/** Cost of a conversation whose last turn is cached, as a share of tokenizing it whole. */
const cachedShare = 0.05
/** Starting a thread and loading a tokenizer in it. */
const startMs = 500

/** Longer bodies are copied into memory of their own, and handed over. */
const longestShared = 4 * 1024 * 1024

interface Job {
  readonly costMs: number
  readonly command: () => ThreadJob
  readonly resolve: (result: ThreadAnswer['result']) => void
  readonly reject: (error: RouterError) => void
}

/** One worker thread with its queue. Survives the death of its worker: the running job fails, the waiting ones go on. */
export class Thread {
  cacheBytes = 0
  readonly #sources: ReadonlyMap<string, TokenizerSource>
  readonly #workerCacheBytes: number
  readonly #onRestart: (error: Error) => void
  readonly #queue: Job[] = []
  #running: Job | null = null
  #shared = new Uint8Array(new SharedArrayBuffer(0))
  /** Null after a death, until the next job: a worker that cannot start fails a job each time and does not spin. */
  #worker: Worker | null
  #closing = false

  constructor(
    workerCacheBytes: number,
    sources: ReadonlyMap<string, TokenizerSource>,
    onRestart: (error: Error) => void,
  ) {
    this.#workerCacheBytes = workerCacheBytes
    this.#sources = sources
    this.#onRestart = onRestart
    this.#worker = this.#start()
  }

  get queued(): number {
    return this.#queue.length
  }

  get backlogMs(): number {
    return this.#queue.reduce((total, job) => total + job.costMs, this.#running?.costMs ?? 0)
  }

  add(name: string, source: TokenizerSource): void {
    this.#worker?.postMessage({ kind: 'add', name, source } satisfies ThreadCommand)
  }

  remove(name: string): void {
    this.#worker?.postMessage({ kind: 'remove', name } satisfies ThreadCommand)
  }

  run(job: Pick<Job, 'costMs' | 'command'>): Promise<ThreadAnswer['result']> {
    return new Promise((resolve, reject) => {
      const at = this.#queue.findIndex((waiting) => waiting.costMs > job.costMs)
      this.#queue.splice(at < 0 ? this.#queue.length : at, 0, { ...job, resolve, reject })
      this.#next()
    })
  }

  /**
   * A copy of a body for the job that begins now, in memory that is used again for the next one: fresh pages would cost more
   * than the copying. The client's bytes stay here to be forwarded.
   */
  share(body: Uint8Array): Uint8Array {
    if (body.length > longestShared) return new Uint8Array(body)
    if (this.#shared.length < body.length) {
      this.#shared = new Uint8Array(new SharedArrayBuffer(2 ** Math.ceil(Math.log2(body.length))))
    }
    this.#shared.set(body)
    return this.#shared.subarray(0, body.length)
  }

  /** Ends the worker as a crash would; the next one takes its place. For tests. */
  async kill(): Promise<void> {
    await this.#worker?.terminate()
  }

  async close(): Promise<void> {
    this.#closing = true
    this.#fail(new RouterError('TOKENIZER_FAILED', 'The tokenizer threads are shut down.'))
    for (const job of this.#queue.splice(0))
      job.reject(new RouterError('TOKENIZER_FAILED', 'The tokenizer threads are shut down.'))
    await this.#worker?.terminate()
  }

  #next(): void {
    if (this.#running !== null) return
    const job = this.#queue.shift()
    if (job === undefined) return
    this.#running = job
    const command = job.command()
    this.#worker ??= this.#start()
    const buffer = command.body?.buffer
    this.#worker.postMessage(command, buffer instanceof ArrayBuffer ? [buffer] : [])
    this.#worker.ref()
  }

  #start(): Worker {
    // The compiler does not rewrite this name: the thread's file has the extension that this one has (decision 27).
    const extension = import.meta.url.endsWith('.ts') ? '.ts' : '.js'
    const worker = new Worker(new URL('./tokenize.thread' + extension, import.meta.url), {
      workerData: { cacheBytes: this.#workerCacheBytes },
      name: 'tokenize',
    })
    worker.on('message', (answer: ThreadAnswer) => this.#answered(answer))
    worker.on('error', (error) => this.#died(worker, error instanceof Error ? error : new Error(String(error))))
    worker.on('exit', (code) => this.#died(worker, new Error(`exit code ${code}`)))
    // Idle threads do not keep the process alive.
    worker.unref()
    for (const [name, source] of this.#sources)
      worker.postMessage({ kind: 'add', name, source } satisfies ThreadCommand)
    return worker
  }

  #answered(answer: ThreadAnswer): void {
    const job = this.#running
    this.#running = null
    this.#worker?.unref()
    this.cacheBytes = answer.cacheBytes
    this.#next()
    if (answer.result.kind === 'failed') job?.reject(fromSentError(answer.result.error))
    else job?.resolve(answer.result)
  }

  #died(worker: Worker, error: Error): void {
    // An error is followed by an exit; only the first of the two counts.
    if (this.#closing || worker !== this.#worker) return
    this.cacheBytes = 0
    this.#worker = null
    this.#onRestart(error)
    this.#fail(new RouterError('TOKENIZER_FAILED', `The tokenizer thread failed: ${error.message}`, { cause: error }))
    this.#next()
  }

  #fail(error: RouterError): void {
    const job = this.#running
    this.#running = null
    job?.reject(error)
  }
}
