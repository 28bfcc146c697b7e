/**
 * Routers that follow one engine through a log, in virtual time, with everything that may go wrong between them: late and
 * lost messages, partitions, a Redis that freezes or forgets, crashes, engines that start anew. Feeds, event sequences,
 * ingest and the bytes of the log are the real ones; sockets, Redis and its leases are simulated.
 */
import { Ingest } from '../../src/events/ingest.ts'
import type { DecodedEvent, DecodedStore } from '../../src/events/decode.ts'
import { Sequence } from '../../src/events/sequence.ts'
import type { NamedBatch, WorkerSlot } from '../../src/kv/batch.ts'
import { blockKeys, type KeyMaker } from '../../src/kv/keys.ts'
import { newPrefixMatch } from '../../src/map/map.ts'
import { Feed } from '../../src/replication/feed.ts'
import { decodeFrames, encodeFrame } from '../../src/replication/frame-codec.ts'
import { countingCounters } from '../events/counting.ts'
import { NaiveMap } from './naive-map.ts'

const slot = 0 as WorkerSlot
const blockSize = 4
const worker = 'http://engine:8000'
/** Blocks that the engine may hold. */
const universe = 24
const leaseMs = 1200

export interface WorldOptions {
  readonly random: () => number
  readonly keys: KeyMaker
  readonly replicas: number
  /** Batches that the engine can replay; null: it has no replay endpoint. */
  readonly replayBatches: number | null
  /** Share of messages of the engine that are lost on their way. */
  readonly lossShare: number
  /** Whether an event of the engine goes to one of its listeners only. */
  readonly isPolled?: boolean
}

interface EngineBatch {
  readonly sequence: number
  readonly timestamp: number
  readonly events: readonly DecodedEvent[]
}

/** One process after the other at one address; counts stores as vLLM does. */
class FakeEngine {
  process = 1
  batches: EngineBatch[] = []
  held = new Map<number, number>()

  restart(): void {
    this.process++
    this.batches = []
    this.held = new Map()
  }

  batch(events: readonly DecodedEvent[]): EngineBatch {
    const sequence = this.batches.length
    const batch = { sequence, timestamp: this.process * 1e6 + sequence, events }
    this.batches.push(batch)
    return batch
  }

  store(block: number): EngineBatch {
    this.held.set(block, (this.held.get(block) ?? 0) + 1)
    return this.batch([storeOf(block)])
  }

  remove(block: number): EngineBatch {
    const count = (this.held.get(block) ?? 0) - 1
    if (count > 0) this.held.set(block, count)
    else this.held.delete(block)
    return this.batch([removeOf(block)])
  }
}

/** What is written to Redis, and who may read and write it. */
class FakeRedis {
  entries: Buffer[] = []
  /** Changes where everything is forgotten. */
  logId = 1
  frozen = false
  lease: { readonly owner: number; untilMs: number } | null = null
  /** Written while it was frozen: done when it goes on. */
  late: (() => void)[] = []

  thaw(): void {
    this.frozen = false
    for (const run of this.late.splice(0)) run()
  }

  flush(): void {
    this.entries = []
    this.logId++
    this.lease = null
  }
}

export class World {
  nowMs = 0
  /** From then on no message is lost: that the last one was lost nobody can tell. */
  lossless = false
  readonly options: WorldOptions
  readonly engine = new FakeEngine()
  readonly redis = new FakeRedis()
  readonly replicas: Replica[] = []
  readonly #queue: { atMs: number; order: number; run: () => void }[] = []
  #order = 0
  #nextId = 1

  constructor(options: WorldOptions) {
    this.options = options
    for (let i = 0; i < options.replicas; i++) this.addReplica()
  }

  after(delayMs: number, run: () => void): void {
    const entry = { atMs: this.nowMs + delayMs, order: this.#order++, run }
    const isLater = (other: typeof entry): boolean => other.atMs > entry.atMs
    const place = this.#queue.findIndex(isLater)
    if (place < 0) this.#queue.push(entry)
    else this.#queue.splice(place, 0, entry)
  }

  advance(ms: number): void {
    const untilMs = this.nowMs + ms
    for (let next = this.#queue[0]; next !== undefined && next.atMs <= untilMs; next = this.#queue[0]) {
      this.#queue.shift()
      this.nowMs = next.atMs
      next.run()
    }
    this.nowMs = untilMs
  }

  chance(share: number): boolean {
    return this.options.random() < share
  }

  between(low: number, high: number): number {
    return low + Math.floor(this.options.random() * (high - low + 1))
  }

  addReplica(snapshot?: Snapshot): Replica {
    const replica = new Replica(this, this.#nextId++, snapshot)
    this.replicas.push(replica)
    return replica
  }

  crash(replica: Replica): void {
    replica.stop()
    this.replicas.splice(this.replicas.indexOf(replica), 1)
  }

  /** The engine does something, and tells whoever listens. */
  publish(batch: EngineBatch): void {
    const listeners = this.replicas.flatMap(({ subscription }) => subscription ?? [])
    if (this.options.isPolled !== true) for (const listener of listeners) listener.deliver(batch)
    else listeners[this.between(0, listeners.length - 1)]?.deliver(batch)
  }

  storeOne(): void {
    this.publish(this.engine.store(this.between(0, universe - 1)))
  }

  removeOne(): void {
    const held = [...this.engine.held.keys()]
    const block = held[this.between(0, held.length - 1)]
    if (block !== undefined) this.publish(this.engine.remove(block))
  }

  restartEngine(): void {
    this.engine.restart()
    for (const replica of this.replicas) replica.subscription?.break()
  }

  /** Blocks that a replica credits and the engine does not hold, and those that it does not credit although it does. */
  differences(replica: Replica): { stale: number[]; missing: number[] } {
    const held = new Set(replica.blocks())
    const all = Array.from({ length: universe }, (_, block) => block)
    return {
      stale: all.filter((block) => held.has(block) && !this.engine.held.has(block)),
      missing: all.filter((block) => !held.has(block) && this.engine.held.has(block)),
    }
  }
}

export interface Snapshot {
  readonly batches: readonly NamedBatch[]
  readonly readFrom: number
  readonly logId: number
  readonly partial: boolean
}

export class Replica {
  readonly id: number
  readonly feed: Feed
  readonly #world: World
  readonly #map = new NaiveMap()
  readonly #ingest: Ingest
  readonly #terms = { session: 0 }
  subscription: Subscription | null = null
  /** Cut off from Redis. */
  cut = false
  #stopped = false
  #read: number
  #logId: number
  #seenMs = 0
  #isUp = true
  #renewedMs = -Infinity
  /** All that was applied since the last clear: what a snapshot is made of. */
  #applied: NamedBatch[] = []
  clears = 0
  listened = 0

  constructor(world: World, id: number, snapshot?: Snapshot) {
    this.#world = world
    this.id = id
    const { redis, options } = world
    const isHeardByMany = options.isPolled !== true
    this.#read = snapshot?.logId === redis.logId ? snapshot.readFrom : redis.entries.length
    this.#logId = redis.logId
    this.#seenMs = world.nowMs
    this.#map.addWorker(slot, { countsStores: true, blockSize })
    this.#ingest = new Ingest({
      ...{ worker: slot, map: this.#map, keys: options.keys, model: 'm', blockSize, countsStores: true },
      counters: countingCounters().counters,
      onBlockSize: () => undefined,
      sink: {
        batch: (batch) => {
          this.#applied.push(batch)
          this.feed.heard(batch)
        },
        cleared: (reason) => {
          this.#applied = []
          this.clears++
          this.feed.forgotten(reason)
        },
      },
    })
    this.feed = new Feed(
      { worker, isHeardByMany, graceMs: 500, fallbackMs: 2000, markMs: 1000 },
      {
        listen: (position, partial) => {
          this.listened++
          this.subscription = new Subscription(world, this.#ingest)
          this.subscription.start(position, partial)
        },
        unlisten: () => {
          const partial = this.subscription?.partial ?? false
          this.subscription?.stop()
          this.subscription = null
          return partial
        },
        follow: (batch) => {
          this.#applied.push(batch)
          this.#ingest.follow(batch)
        },
        forget: (reason) => {
          this.#applied = []
          this.clears++
          this.#ingest.forget(reason)
        },
        publish: (frame) => this.#append(encodeFrame(frame)),
        apart: () => undefined,
      },
    )
    if (snapshot !== undefined) {
      for (const batch of snapshot.batches) this.#ingest.follow(batch)
      this.#applied = [...snapshot.batches]
      this.feed.restore(this.#ingest.position, snapshot.partial)
    }
    this.#tick()
    this.#poll()
    this.#contend()
  }

  get owns(): boolean {
    return this.#terms.session !== 0
  }

  snapshot(): Snapshot {
    const partial = this.subscription?.partial ?? this.feed.partial
    return { batches: [...this.#applied], readFrom: this.#read, logId: this.#logId, partial }
  }

  stop(): void {
    this.#stopped = true
    this.subscription?.stop()
    this.subscription = null
  }

  blocks(): number[] {
    const { keys } = this.#world.options
    const scope = keys.scope({ model: 'm', blockSize, adapter: null })
    const match = newPrefixMatch(1)
    return Array.from({ length: universe }, (_, block) => block).filter((block) => {
      this.#map.match([{ blockSize, keys: blockKeys(tokensOf(block), scope) }], match)
      return match.gpu[0] === 1
    })
  }

  get #reaches(): boolean {
    return !this.cut && !this.#world.redis.frozen
  }

  /** Written in order; what is under way when Redis freezes may be done when it goes on, or never. */
  #append(bytes: Buffer): void {
    const { redis } = this.#world
    if (this.#reaches) redis.entries.push(bytes)
    else if (!this.cut && this.#world.chance(0.5)) redis.late.push(() => redis.entries.push(bytes))
  }

  #tick(): void {
    if (this.#stopped) return
    const { nowMs, redis } = this.#world
    if (this.#reaches) {
      this.#seenMs = nowMs
      if (!this.#isUp) {
        this.#isUp = true
        this.feed.logIs('up', nowMs)
      }
      if (redis.logId !== this.#logId) {
        this.#logId = redis.logId
        this.#read = 0
        this.feed.logBegan()
      }
    } else if (this.#isUp && nowMs - this.#seenMs > 1000) {
      this.#isUp = false
      this.feed.logIs('away', nowMs)
    }
    this.feed.tick(nowMs, this.#read >= redis.entries.length)
    this.#world.after(100, () => this.#tick())
  }

  #poll(): void {
    if (this.#stopped) return
    const { redis } = this.#world
    if (this.#reaches && redis.logId === this.#logId) {
      const until = Math.min(redis.entries.length, this.#read + this.#world.between(1, 20))
      for (; this.#read < until; this.#read++)
        decodeFrames(redis.entries[this.#read] ?? Buffer.alloc(0), (frame) => this.feed.frame(frame))
    }
    this.#world.after(this.#world.between(1, 30), () => this.#poll())
  }

  #contend(): void {
    if (this.#stopped) return
    const { nowMs, redis } = this.#world
    if (this.#reaches) {
      if (redis.lease === null || redis.lease.untilMs <= nowMs)
        redis.lease = { owner: this.id, untilMs: nowMs + leaseMs }
      const isOurs = redis.lease.owner === this.id
      if (isOurs) {
        redis.lease.untilMs = nowMs + leaseMs
        this.#renewedMs = nowMs
        if (!this.owns) {
          this.#terms.session = this.#world.between(1, 2 ** 40)
          this.feed.own(this.#terms.session)
        }
      } else this.#lose()
    } else if (nowMs - this.#renewedMs >= leaseMs) this.#lose()
    this.#world.after(this.#world.between(250, 350), () => this.#contend())
  }

  #lose(): void {
    if (!this.owns) return
    this.#terms.session = 0
    this.feed.disown()
  }
}

/** A subscription with replay, as `events/sources/zmq.ts` joins them to the sequence. */
class Subscription {
  readonly #world: World
  readonly #sequence: Sequence<readonly DecodedEvent[]>
  #connected = false
  #stopped = false
  #process = 0
  #replays = 0
  #arrivesMs = 0
  #distrusts = 0

  constructor(world: World, ingest: Ingest) {
    this.#world = world
    const guarded = (run: () => void) => (): void => {
      if (!this.#stopped) run()
    }
    this.#sequence = new Sequence(
      { replay: world.options.replayBatches !== null, maxBufferedBatches: 1000, maxBufferedBytes: 1e9 },
      {
        apply: ({ sequence, timestamp, batch }) => guarded(() => ingest.applyEvents(sequence, timestamp, batch))(),
        clear: (reason) => guarded(() => ingest.clear(reason))(),
        requestReplay: (from) => this.#replay(from),
        cancelReplay: () => this.#replays++,
        dropped: () => undefined,
        gap: () => undefined,
        restart: () => undefined,
      },
    )
  }

  get partial(): boolean {
    return this.#sequence.partial
  }

  start(position: NamedBatch | { sequence: number; timestamp: number } | null, partial: boolean): void {
    this.#sequence.resume(position, partial)
    this.#connect()
  }

  stop(): void {
    this.#stopped = true
  }

  deliver(batch: EngineBatch): void {
    const { lossless, options } = this.#world
    if (!this.#connected || (!lossless && this.#world.chance(options.lossShare))) return
    const process = this.#process
    this.#arrivesMs = Math.max(this.#arrivesMs, this.#world.nowMs + this.#world.between(0, 5))
    this.#world.after(this.#arrivesMs - this.#world.nowMs, () => {
      if (!this.#stopped && this.#connected && process === this.#process) this.#sequence.live(arrival(batch))
    })
  }

  /** The engine's process ended. */
  break(): void {
    if (!this.#connected) return
    this.#connected = false
    this.#sequence.disconnected()
    const distrust = ++this.#distrusts
    this.#world.after(10_000, () => {
      if (!this.#stopped && !this.#connected && distrust === this.#distrusts) this.#sequence.distrust()
    })
    this.#connect()
  }

  #connect(): void {
    this.#world.after(this.#world.between(1, 40), () => {
      if (this.#stopped) return
      this.#connected = true
      this.#process = this.#world.engine.process
      this.#arrivesMs = this.#world.nowMs
      this.#sequence.connected()
    })
  }

  #replay(from: number): void {
    const replay = ++this.#replays
    this.#world.after(this.#world.between(1, 20), () => {
      const { batches } = this.#world.engine
      const oldest = Math.max(0, batches.length - (this.#world.options.replayBatches ?? 0))
      for (const batch of batches.slice(Math.max(from, oldest)))
        if (this.#isAwaited(replay)) this.#sequence.replayBatch(arrival(batch))
      if (this.#isAwaited(replay)) this.#sequence.replayEnd()
    })
  }

  #isAwaited(replay: number): boolean {
    return replay === this.#replays && !this.#stopped
  }
}

function arrival({ sequence, timestamp, events }: EngineBatch) {
  return { sequence, timestamp, bytes: 10, batch: events }
}

function tokensOf(block: number): Uint32Array {
  return Uint32Array.of(block, 2, 3, 4)
}

function storeOf(block: number): DecodedStore {
  return {
    ...{ kind: 'store', hashes: Uint32Array.of(block + 1, 0), parent: null, tokens: tokensOf(block), pairs: false },
    ...{ blockSize, loraId: null, loraName: null, medium: 'GPU', cacheSalt: null, extraKeys: null, group: 0 },
    ...{ specKind: null, slidingWindow: null, locality: null, ownership: null, sessionId: null },
  }
}

function removeOf(block: number): DecodedEvent {
  return {
    ...{ kind: 'remove', hashes: Uint32Array.of(block + 1, 0), medium: 'GPU', group: 0 },
    ...{ locality: null, ownership: null },
  }
}
