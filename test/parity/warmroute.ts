import { Ingest } from '../../src/events/ingest.ts'
import type { WorkerSlot } from '../../src/kv/batch.ts'
import { createKeyMaker } from '../../src/kv/keys.ts'
import { PromptKeys } from '../../src/kv/prompt-keys.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import { newPrefixMatch } from '../../src/map/map.ts'
import { Candidates, type MatchBySlot } from '../../src/routing/candidates.ts'
import { createProfile, type ProfileChoice } from '../../src/routing/catalogue.ts'
import type { Dispatch } from '../../src/routing/policy.ts'
import { InFlightCounters } from '../../src/workers/fleet.ts'
import { countingCounters } from '../events/counting.ts'
import { type Held } from './engine-cache.ts'
import { seededRandom } from '../support/random.ts'
import { aRequest, aWorker } from '../support/routing.ts'

export interface Chosen {
  readonly worker: number
  /** By worker. */
  readonly costs: readonly number[]
  readonly held: readonly Held[]
  readonly keys: Uint32Array
}

const model = 'model'

/** Warmroute's own parts as the request path joins them, without what is not asked here: events, map, profile. */
export class Warmroute {
  readonly #blockSize: number
  readonly #promptKeys: PromptKeys
  readonly #map: FlatMap
  readonly #ingests: readonly Ingest[]
  readonly #sequences: number[]
  readonly #workers
  readonly #candidates: Candidates
  readonly #counters: InFlightCounters
  readonly #match: MatchBySlot
  readonly #profile
  #nowMs = 0

  static async of(profile: ProfileChoice, workers: number, blockSize: number, seed: number): Promise<Warmroute> {
    return new Warmroute(await createKeyMaker(Buffer.from('parity')), profile, workers, blockSize, seed)
  }

  private constructor(
    keys: Awaited<ReturnType<typeof createKeyMaker>>,
    profile: ProfileChoice,
    workers: number,
    blockSize: number,
    seed: number,
  ) {
    this.#blockSize = blockSize
    this.#promptKeys = new PromptKeys(keys)
    this.#map = new FlatMap({ maxWorkers: workers, budgetBytes: 256 * 1024 * 1024 })
    this.#workers = Array.from({ length: workers }, (_, slot) => aWorker(slot, { blockSize }))
    this.#ingests = this.#workers.map(({ slot }) => {
      this.#map.addWorker(slot as WorkerSlot, { countsStores: true, blockSize })
      const { counters } = countingCounters()
      const worker = slot as WorkerSlot
      const onBlockSize = (): void => undefined
      return new Ingest({ worker, map: this.#map, keys, model, blockSize, countsStores: true, counters, onBlockSize })
    })
    this.#sequences = this.#workers.map(() => 0)
    this.#candidates = new Candidates(workers)
    this.#counters = new InFlightCounters(workers)
    this.#match = { ...newPrefixMatch(workers), coming: new Uint32Array(workers) }
    this.#profile = createProfile(profile, {
      context: { clock: () => this.#nowMs, random: seededRandom(seed) },
      workers,
      fault: (plugin, fault) => {
        throw new Error(`${plugin} fails`, { cause: fault })
      },
      // Fewer milliseconds than a pause of the machine that runs both routers would end the comparison.
      limits: { stallMs: 60_000, faults: 1, pauseMs: 1 },
    })
  }

  /** What an engine published, byte for byte. */
  hear(worker: number, payload: Buffer): void {
    const sequence = this.#sequences[worker] as number
    this.#sequences[worker] = sequence + 1
    this.#ingests[worker]?.apply(sequence, 0, payload)
  }

  choose(tokens: Uint32Array): Chosen {
    this.#nowMs++
    const blockSize = this.#blockSize
    const keys = this.#promptKeys.of(tokens, { model, adapter: null, blockSize, cacheSalt: null })
    const candidates = this.#candidates
    this.#map.match([{ blockSize, keys }], this.#match)
    candidates.gather(this.#workers, this.#counters, this.#match, {
      nowMs: this.#nowMs,
      staleLoadMs: 1000,
      promptTokens: tokens.length,
    })
    const request = aRequest({ promptTokens: tokens.length, keys: (size) => (size === blockSize ? keys : none) })
    const worker = this.#profile.choose(request, candidates, candidates)
    const costs = [...this.#profile.totals].map((total) => (total === 0 ? 0 : -total))
    const held = this.#workers.map((_, slot) => {
      const { gpu, host, disk } = candidates.held(slot)
      return { gpu, host, disk }
    })
    return { worker, costs, held, keys }
  }

  dispatch(worker: number, tokens: Uint32Array, { keys, held }: Chosen): Dispatch {
    const cached = held[worker] ?? { gpu: 0, host: 0, disk: 0 }
    const dispatch: Dispatch = {
      serial: worker,
      promptTokens: tokens.length,
      uncachedTokens: tokens.length,
      prefillTokensAhead: 0,
      requestsAhead: 0,
      stream: true,
      atMs: this.#nowMs,
      keys,
      held: { blockSize: this.#blockSize, ...cached },
      adapter: null,
      session: null,
      maxTokens: null,
    }
    this.#profile.dispatched(dispatch)
    return dispatch
  }

  firstByte(dispatch: Dispatch): void {
    this.#profile.firstByte(dispatch, this.#nowMs - dispatch.atMs)
  }

  finished(dispatch: Dispatch): void {
    this.#profile.finished(dispatch)
  }
}

const none = new Uint32Array(0)
