import type { KvBatch, KvEvent as MapEvent, WorkerSlot } from '../kv/batch.ts'
import { blockKeys, createKeyMaker, localHashes, type KeyScope } from '../kv/keys.ts'
import { FlatMap } from '../map/flat-map.ts'
import type { PrefixMatch } from '../map/map.ts'
import { Candidates } from '../routing/candidates.ts'
import { createProfile, type ProfileChoice } from '../routing/catalogue.ts'
import type { Dispatch } from '../routing/policy.ts'
import type { Profile } from '../routing/profile.ts'
import { Engine, type EngineOptions } from '../simulator/engine.ts'
import type { KvEvent } from '../simulator/kv-event.ts'
import { seededRandom } from '../simulator/random.ts'
import type { GenerationRequest } from '../simulator/sequence.ts'
import { Fleet, InFlight } from '../workers/fleet.ts'
import { newAgreement, type Worker } from '../workers/worker.ts'

/** One user who waits for each answer, thinks, and goes on with a prompt that holds all that was said before. */
export interface Conversation {
  readonly startMs: number
  readonly system: Uint32Array
  readonly turns: readonly { readonly tokens: Uint32Array; readonly outputTokens: number; readonly thinkMs: number }[]
}

export interface VirtualOptions {
  readonly conversations: readonly Conversation[]
  readonly workers: number
  readonly engine: Partial<EngineOptions>
  /** A routing profile, or the greedy oracle that sees the engines' true caches and queues. */
  readonly policy: string | ProfileChoice | 'oracle'
  /** From a step's end until the router has applied its KV events. */
  readonly eventDelayMs?: number
  readonly seed: number
}

export interface VirtualResult {
  readonly policy: string
  readonly requests: number
  /** Sorted. */
  readonly ttftMs: Float64Array
  readonly meanTtftMs: number
  /** Cached prompt tokens over all prompt tokens. */
  readonly hitRatio: number
  readonly requestsPerWorker: readonly number[]
  readonly mapMisses: number
}

const defaultEventDelayMs = 1

/** Chooses a worker for a prompt and follows the request on it. */
interface Chooser {
  choose(tokens: Uint32Array, nowMs: number): number
  sent(id: string, tokens: Uint32Array, worker: number, nowMs: number): void
  firstToken(id: string, nowMs: number): void
  finished(id: string, cachedTokens: number): void
  applyEvents(worker: number, events: readonly KvEvent[]): void
  readonly misses: number
}

/**
 * Runs a workload against simulated engines in virtual time, with the real map, keys, accounting and policies between
 * them. Equal options give equal results, down to the last bit.
 */
export async function runVirtual(options: VirtualOptions): Promise<VirtualResult> {
  const agenda = new Agenda()
  const engines: Engine[] = []
  const clock = { ms: 0 }
  const chooser = await chooserFor(options, engines, clock)
  const ttftMs: number[] = []
  const perWorker = new Array<number>(options.workers).fill(0)
  const running = new Map<string, { conversation: Conversation; turn: number; history: Uint32Array }>()
  let promptTokens = 0
  let cachedTokens = 0

  for (let index = 0; index < options.workers; index++) {
    engines.push(
      new Engine({
        ...options.engine,
        seed: options.seed,
        onToken: (sequence, _token, atMs) => {
          if (sequence.generatedTokens === 1) chooser.firstToken(sequence.id, atMs)
        },
        onFinished: (result) => {
          const live = running.get(result.id)
          if (live === undefined) return
          running.delete(result.id)
          chooser.finished(result.id, result.cachedTokens)
          ttftMs.push(result.ttftMs)
          promptTokens += result.promptTokens
          cachedTokens += result.cachedTokens
          const history = joined(live.history, result.generated)
          const next = live.turn + 1
          const turn = live.conversation.turns[next]
          if (turn !== undefined) agenda.at(result.finishedMs + turn.thinkMs, () => send(live.conversation, next, history))
        },
        ...(options.policy === 'oracle' ? {} : { onEvents: eventSink(index) }),
      }),
    )
  }

  function eventSink(index: number) {
    return (events: readonly KvEvent[], atMs: number): void => {
      agenda.at(atMs + (options.eventDelayMs ?? defaultEventDelayMs), () => chooser.applyEvents(index, events))
    }
  }

  function send(conversation: Conversation, turnIndex: number, history: Uint32Array): void {
    const turn = conversation.turns[turnIndex]
    if (turn === undefined) return
    const tokens = joined(history, turn.tokens)
    const worker = chooser.choose(tokens, clock.ms)
    const id = `${options.conversations.indexOf(conversation)}-${turnIndex}`
    running.set(id, { conversation, turn: turnIndex, history: tokens })
    perWorker[worker] = (perWorker[worker] ?? 0) + 1
    chooser.sent(id, tokens, worker, clock.ms)
    engines[worker]?.add({ id, tokens, outputTokens: turn.outputTokens }, clock.ms)
  }

  for (const conversation of options.conversations) agenda.at(conversation.startMs, () => send(conversation, 0, conversation.system))
  for (;;) {
    const nextEngineMs = Math.min(...engines.map((engine) => engine.nextEventMs() ?? Infinity))
    const nextMs = Math.min(nextEngineMs, agenda.nextMs)
    if (nextMs === Infinity) break
    clock.ms = nextMs
    for (const engine of engines) engine.advanceTo(nextMs)
    agenda.run(nextMs)
  }

  const sorted = Float64Array.from(ttftMs).sort()
  return {
    policy: typeof options.policy === 'string' ? options.policy : (options.policy.name ?? 'custom'),
    requests: sorted.length,
    ttftMs: sorted,
    meanTtftMs: sorted.reduce((sum, ms) => sum + ms, 0) / sorted.length,
    hitRatio: cachedTokens / promptTokens,
    requestsPerWorker: perWorker,
    mapMisses: chooser.misses,
  }
}

async function chooserFor(options: VirtualOptions, engines: readonly Engine[], clock: { ms: number }): Promise<Chooser> {
  if (options.policy === 'oracle') return new Oracle(engines)
  const random = seededRandom(options.seed)
  const keys = await createKeyMaker(new Uint8Array(32).fill(options.seed & 255))
  const blockSize = options.engine.blockSize ?? 16
  const profile = createProfile(options.policy, {
    context: { clock: () => clock.ms, random: () => random.next() },
    workers: options.workers,
    fault: (plugin, error) => {
      throw new Error(`policy ${plugin} failed`, { cause: error })
    },
  })
  return new RoutedChooser(options.workers, profile, keys.scope({ model: 'model', blockSize, adapter: null }))
}

/** Greedy: sees the true caches and queues, takes the least estimated time to first token. No bound, but hard to beat. */
class Oracle implements Chooser {
  readonly misses = 0
  readonly #engines: readonly Engine[]

  constructor(engines: readonly Engine[]) {
    this.#engines = engines
  }

  choose(tokens: Uint32Array): number {
    const request: GenerationRequest = { id: 'oracle', tokens, outputTokens: 1 }
    let best = 0
    let leastMs = Infinity
    for (const [index, engine] of this.#engines.entries()) {
      const { maxBatchedTokens, prefillTokensPerSecond, stepBaseMs, decodeMsPerRequest } = engine.options
      const { prefillTokens, decoding, stepLeftMs } = engine.backlog()
      const work = prefillTokens + tokens.length - engine.cachedTokens(request)
      const steps = Math.ceil(work / maxBatchedTokens)
      const ms = stepLeftMs + (work / prefillTokensPerSecond) * 1000 + steps * (stepBaseMs + decoding * decodeMsPerRequest)
      if (ms >= leastMs) continue
      leastMs = ms
      best = index
    }
    return best
  }

  sent(): void {
    return
  }

  firstToken(): void {
    return
  }

  finished(): void {
    return
  }

  applyEvents(): void {
    return
  }
}

/** The router's own parts: map from events, counters, profile. */
class RoutedChooser implements Chooser {
  misses = 0
  readonly #fleet: Fleet
  readonly #workers: Worker[] = []
  readonly #map: FlatMap
  readonly #scope: KeyScope
  readonly #profile: Profile
  readonly #candidates: Candidates
  readonly #match: PrefixMatch
  readonly #live = new Map<string, { inFlight: InFlight; dispatch: Dispatch; predicted: number }>()
  readonly #sequences: number[]
  #chosen = 0

  constructor(workers: number, profile: Profile, scope: KeyScope) {
    this.#fleet = new Fleet(workers)
    this.#map = new FlatMap({ maxWorkers: workers, budgetBytes: 256 * 1024 * 1024 })
    this.#scope = scope
    this.#profile = profile
    this.#candidates = new Candidates(workers)
    this.#match = { gpu: new Uint32Array(workers), host: new Uint32Array(workers), disk: new Uint32Array(workers), shared: new Uint32Array(workers) }
    this.#sequences = new Array<number>(workers).fill(0)
    for (let index = 0; index < workers; index++) {
      const worker = this.#fleet.add((slot, serial) => simulatedWorker(slot, serial, scope.blockSize))
      if (worker === null) throw new RangeError('the fleet is full')
      this.#workers.push(worker)
      this.#map.addWorker(worker.slot as WorkerSlot, { countsStores: true, blockSize: scope.blockSize })
    }
  }

  choose(tokens: Uint32Array, nowMs: number): number {
    for (const held of [this.#match.gpu, this.#match.host, this.#match.disk, this.#match.shared]) held.fill(0)
    this.#map.match([{ blockSize: this.#scope.blockSize, keys: blockKeys(tokens, this.#scope) }], this.#match)
    this.#candidates.gather(this.#workers, this.#fleet.counters, this.#match, { nowMs, staleLoadMs: 0, promptTokens: tokens.length, tried: new Set() })
    this.#chosen = this.#profile.choose(
      {
        model: 'model',
        adapter: null,
        promptTokens: tokens.length,
        promptTokensEstimate: tokens.length,
        sessionId: null,
        priority: 0,
        stream: true,
        maxTokens: null,
      },
      this.#candidates,
      this.#candidates,
    )
    return (this.#candidates.workers[this.#chosen] as Worker).slot
  }

  sent(id: string, tokens: Uint32Array, worker: number, nowMs: number): void {
    const predicted = this.#candidates.cachedTokens[this.#chosen] as number
    const dispatch: Dispatch = {
      serial: worker,
      promptTokens: tokens.length,
      uncachedTokens: tokens.length - predicted,
      prefillTokensAhead: this.#fleet.counters.prefillTokens(worker),
      requestsAhead: this.#fleet.counters.requests(worker),
      stream: true,
      atMs: nowMs,
    }
    const inFlight = new InFlight(this.#fleet.counters, worker, {
      promptTokens: tokens.length,
      uncachedTokens: dispatch.uncachedTokens,
      blockSize: this.#scope.blockSize,
      sequences: 1,
    })
    this.#live.set(id, { inFlight, dispatch, predicted })
    this.#profile.dispatched(dispatch)
  }

  firstToken(id: string, nowMs: number): void {
    const live = this.#live.get(id)
    if (live === undefined) return
    live.inFlight.prefilledTo(0)
    this.#profile.firstByte(live.dispatch, nowMs - live.dispatch.atMs)
  }

  finished(id: string, cachedTokens: number): void {
    const live = this.#live.get(id)
    if (live === undefined) return
    this.#live.delete(id)
    if (live.predicted !== cachedTokens) this.misses++
    live.inFlight.release()
    this.#profile.finished(live.dispatch)
  }

  applyEvents(worker: number, events: readonly KvEvent[]): void {
    const sequence = this.#sequences[worker] ?? 0
    this.#sequences[worker] = sequence + 1
    const batch: KvBatch = { worker: worker as WorkerSlot, epoch: 0, sequence, events: events.map((event) => mapEvent(event, this.#scope)) }
    this.#map.apply(batch)
  }
}

function mapEvent(event: KvEvent, scope: KeyScope): MapEvent {
  switch (event.kind) {
    case 'cleared':
      return { kind: 'clear' }
    case 'removed':
      return { kind: 'remove', tier: 0, group: 0, engineHashes: Uint32Array.of(event.low, event.high) }
    case 'stored':
      return {
        kind: 'store',
        tier: 0,
        group: 0,
        engineHashes: event.hashes,
        locals: localHashes(event.tokens, scope),
        parent:
          event.parent === null
            ? { kind: 'root', keyLow: scope.rootLow, keyHigh: scope.rootHigh }
            : { kind: 'block', hashLow: event.parent[0], hashHigh: event.parent[1] },
      }
    default:
      return event satisfies never
  }
}

function simulatedWorker(slot: number, serial: number, blockSize: number): Worker {
  return {
    id: `http://simulated:${slot}`,
    origin: `http://simulated:${slot}`,
    basePath: '',
    rank: null,
    slot,
    serial,
    pool: 'model',
    engine: 'vllm',
    headers: {},
    labels: {},
    state: 'healthy',
    blockSize,
    capacityBlocks: null,
    load: null,
    degraded: null,
    exact: true,
    agreement: newAgreement(),
  }
}

/** What is to happen when, in the order of time and, within one instant, of being entered. */
class Agenda {
  #entries: { atMs: number; order: number; run: () => void }[] = []
  #order = 0

  get nextMs(): number {
    return this.#entries[0]?.atMs ?? Infinity
  }

  at(atMs: number, run: () => void): void {
    const entry = { atMs, order: this.#order++, run }
    let low = 0
    let high = this.#entries.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#entries[middle]?.atMs ?? 0) <= atMs) low = middle + 1
      else high = middle
    }
    this.#entries.splice(low, 0, entry)
  }

  run(nowMs: number): void {
    while (this.nextMs <= nowMs) this.#entries.shift()?.run()
  }
}

function joined(first: Uint32Array, second: Uint32Array): Uint32Array {
  const both = new Uint32Array(first.length + second.length)
  both.set(first)
  both.set(second, first.length)
  return both
}
