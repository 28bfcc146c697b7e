import { isDeepStrictEqual } from 'node:util'
import type { Dispatch } from '../../src/routing/policy.ts'
import { encodeBatch } from '../../src/simulator/event-encoding.ts'
import { systemClock } from '../../src/zmtp/clock.ts'
import { PubSocket } from '../../src/zmtp/pub-socket.ts'
import { eventually } from '../engines/client.ts'
import { randomWords } from '../support/random.ts'
import { DynamoLog, type Decided } from './dynamo-log.ts'
import { EngineCache, type Held } from './engine-cache.ts'
import { Prompts, type Prompt } from './prompts.ts'
import type { SelectService } from './select-service.ts'
import type { Warmroute } from './warmroute.ts'

/** Costs this near to each other are equal. */
export const tieWithin = 1e-9
const mostRunning = 30
const heardDeadlineMs = 10_000
const topic = Buffer.from('kv')

/** A decision with what both routers knew. */
export interface Compared extends Decided {
  /** Workers with the least cost by our own computation. */
  readonly best: readonly number[]
  /** What the service holds the workers to have of the prompt, by worker. */
  readonly theirMatch: readonly Held[]
  /** Whether we, and whether it, see what the engines hold. */
  readonly weSee: boolean
  readonly itSees: boolean
}

interface Running {
  readonly id: string
  readonly worker: number
  readonly dispatch: Dispatch
  readonly prompt: Prompt
  isPrefilled: boolean
}

export interface RunOptions {
  readonly workers: number
  readonly blockSize: number
  readonly room: Held
  /** Whether blocks also vanish from the middle of a prompt. */
  readonly drops: boolean
  readonly seed: number
}

/** One fleet of imaginary engines that both routers hear and both dispatch to, one request after the other. */
export class DynamoRun {
  readonly #options: RunOptions
  readonly #theirs: SelectService
  readonly #ours: Warmroute
  readonly #prompts: Prompts
  readonly #word: () => number
  readonly #caches: readonly EngineCache[]
  readonly #sockets: PubSocket[] = []
  readonly #sequences: number[]
  readonly #running: Running[] = []
  #marked = new Map<number, Prompt>()
  #requests = 0
  readonly log = new DynamoLog()

  constructor(options: RunOptions, theirs: SelectService, ours: Warmroute) {
    this.#options = options
    this.#theirs = theirs
    this.#ours = ours
    this.#prompts = new Prompts(options.blockSize, options.seed)
    this.#word = randomWords(options.seed + 1)
    this.#caches = Array.from({ length: options.workers }, () => new EngineCache(options.room))
    this.#sequences = this.#caches.map(() => 0)
  }

  /** Tells the service of the engines and waits until it listens to all of them. */
  async open(): Promise<void> {
    const { workers, blockSize } = this.#options
    for (let worker = 0; worker < workers; worker++) {
      const { promise, resolve } = Promise.withResolvers<undefined>()
      const onSubscription = (): void => resolve(undefined)
      const socket = new PubSocket({ clock: systemClock, random: Math.random, onSubscription })
      this.#sockets.push(socket)
      await this.#theirs.addWorker(worker, blockSize, `tcp://127.0.0.1:${await socket.bind('tcp://127.0.0.1:0')}`)
      await promise
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#sockets.map((socket) => socket.close()))
  }

  /** Lets requests go on, has both choose for the next one and sends it where the service says. */
  async next(): Promise<Compared> {
    await this.#goOn()
    const prompt = this.#prompts.next()
    const { tokens } = prompt
    const overlaps = await this.#theirs.overlaps(tokens)
    const ours = this.#ours.choose(tokens)
    const id = `r${this.#requests++}`
    const theirs = await this.#theirs.reserve(id, tokens)
    const dispatch = this.#ours.dispatch(theirs, tokens, ours)
    this.#running.push({ id, worker: theirs, dispatch, prompt, isPrefilled: false })
    const least = Math.min(...ours.costs)
    const best = ours.costs.flatMap((cost, worker) => (cost - least <= tieWithin ? [worker] : []))
    const theirMatch = ours.held.map((_, worker) => {
      const overlap = overlaps.find(({ worker_id }) => worker_id === worker)
      return {
        gpu: overlap?.device_blocks ?? 0,
        host: overlap?.host_pinned_extension_blocks ?? 0,
        disk: overlap?.disk_extension_blocks ?? 0,
      }
    })
    const { blocks } = prompt
    const weSee = this.#caches.every((cache, worker) => isDeepStrictEqual(cache.held(blocks), ours.held[worker]))
    const itSees = this.#caches.every((cache, worker) =>
      isDeepStrictEqual(cache.heldInTurn(blocks), theirMatch[worker]),
    )
    const compared = { id, promptTokens: tokens.length, ours, theirs, best, theirMatch, weSee, itSees }
    this.log.asked(compared)
    return compared
  }

  /** How often the service chooses each worker for one prompt, and our costs. */
  async sample(times: number): Promise<{ readonly counts: readonly number[]; readonly costs: readonly number[] }> {
    const { tokens } = this.#prompts.next()
    const counts = this.#caches.map(() => 0)
    for (let i = 0; i < times; i++) {
      const worker = await this.#theirs.select(tokens)
      counts[worker] = (counts[worker] ?? 0) + 1
    }
    return { counts, costs: this.#ours.choose(tokens).costs }
  }

  async #goOn(): Promise<void> {
    const busy = new Set<number>()
    for (const running of [...this.#running]) {
      const draw = this.#word() % 100
      if (!running.isPrefilled && draw < 35) {
        running.isPrefilled = true
        this.#caches[running.worker]?.store(running.prompt.blocks)
        busy.add(running.worker)
        await this.#theirs.prefillComplete(running.id)
        this.#ours.firstByte(running.dispatch)
        this.log.happened('first byte', running.id)
      } else if (running.isPrefilled ? draw < 15 : draw > 98) await this.#finish(running)
    }
    while (this.#running.length > mostRunning) await this.#finish(this.#running[0] as Running)
    if (this.#word() % 400 === 0) busy.add(this.#mishap())
    await this.#publish(busy)
  }

  async #finish(running: Running): Promise<void> {
    this.#running.splice(this.#running.indexOf(running), 1)
    await this.#theirs.free(running.id)
    this.#ours.finished(running.dispatch)
    this.log.happened('finished', running.id)
  }

  /** An engine loses all that it holds, or some of it. */
  #mishap(): number {
    const worker = this.#word() % this.#options.workers
    const cache = this.#caches[worker] as EngineCache
    if (this.#options.drops) cache.drop(() => this.#word() % 20 === 0)
    else cache.clear()
    return worker
  }

  /** Sends what the engines tell to both, and waits until the service has heard all of it. */
  async #publish(workers: ReadonlySet<number>): Promise<void> {
    if (workers.size === 0) return
    const marks = this.#prompts.marks()
    for (const worker of workers) {
      const cache = this.#caches[worker] as EngineCache
      const before = this.#marked.get(worker)
      if (before !== undefined) cache.mark(before.blocks, false)
      cache.mark(marks.blocks, true)
      this.#marked.set(worker, marks)
      const payload = encodeBatch(cache.takeEvents(), 0, { hashes: 'int', rank: 0 })
      const sequence = this.#sequences[worker] as number
      this.#sequences[worker] = sequence + 1
      const counted = Buffer.alloc(8)
      counted.writeBigUInt64BE(BigInt(sequence))
      this.#sockets[worker]?.send([topic, counted, payload])
      this.#ours.hear(worker, payload)
    }
    // Each tier of a worker hears its events in order, so that what was sent before the marks has been heard with them.
    const heard = await eventually(
      async () => {
        const overlaps = await this.#theirs.overlaps(marks.tokens)
        const isHeard = overlaps.every(
          (overlap) =>
            !workers.has(overlap.worker_id) ||
            overlap.device_blocks + overlap.host_pinned_extension_blocks + overlap.disk_extension_blocks === 3,
        )
        return isHeard ? true : null
      },
      heardDeadlineMs,
      1,
    )
    if (heard === null) throw new Error('the select service has not heard the engines in time')
  }
}
