import type { EventPosition } from '../kv/batch.ts'

/** A batch on its way to being applied; `batch` is opaque here. */
export interface Arrival<Batch> {
  readonly sequence: number
  /** The engine's own time of the batch: equal numbers with different times are batches of two processes. */
  readonly timestamp: number
  /** What holding the batch back costs. */
  readonly bytes: number
  readonly batch: Batch
}

export type ClearReason =
  /** The engine process is another one. */
  | 'restart'
  /** Batches are lost for good. */
  | 'gap'
  /** The subscription was lost and nothing can tell whether the process is still the same. */
  | 'unverified'
  /** Contact has been lost for too long, or the caller says so. */
  | 'distrust'
  /** A second load begins from nothing, after the first one failed. */
  | 'reload'

/** What the state machine asks for; called synchronously, in order. */
export interface SequenceOutputs<Batch> {
  apply(arrival: Arrival<Batch>): void
  clear(reason: ClearReason): void
  /** Starts a replay from this sequence on, ending one that is under way. */
  requestReplay(from: number): void
  cancelReplay(): void
  dropped(reason: 'duplicate' | 'replayed' | 'buffer_full' | 'stale_replay'): void
  gap(): void
  restart(): void
}

export interface SequenceOptions {
  /** Whether the engine has a replay endpoint. */
  readonly replay: boolean
  /** Live batches held back during a replay. Further ones are dropped and asked for again once it has ended. */
  readonly maxBufferedBatches: number
  readonly maxBufferedBytes: number
}

/**
 * What a replay under way is for:
 *
 *  - `load`: nothing is applied; whatever comes first is where the state begins
 *  - `gap`: the state ends before #next and has to go on there
 *  - `verify`: the same after a lost subscription, where the replay must also prove that the process is still the same
 *  - `reload`: as `load`, but until it brings something the present, partial state stays and grows
 *
 * Both in the middle begin with the last batch applied, which must come back with the time that we know: the replay is
 * another connection and may reach another process than the subscription that has not broken yet.
 */
type Purpose = 'load' | 'gap' | 'verify' | 'reload'

/**
 * Decides what happens to each batch of one worker and rank, so that its entries in the map are those of one engine
 * process without holes, or none (decision 9). Pure: no clock, no sockets.
 *
 *                    connected                    a batch is missing
 *     disconnected ─────────────► replaying ◄─────────────────────── live
 *          ▲                          │  drained, nothing missing     │
 *          │                          └──────────────────────────────►│
 *          └──────────────────────────────────────────────────────────┘  subscription lost
 *
 * Without a replay endpoint, or while one rests after a failure, each arrow into `replaying` is a clear instead, and what
 * comes later counts again.
 */
export class Sequence<Batch> {
  readonly #outputs: SequenceOutputs<Batch>
  readonly #options: SequenceOptions
  #connected = false
  #everConnected = false
  #purpose: Purpose | null = null
  /** Whether the replay under way has brought a batch. */
  #progress = false
  #resting = false
  #reloadWanted = false
  /** The number that continues what is applied; null where nothing is and any number may begin. */
  #next: number | null = null
  /** Time of the batch before #next; null where that batch was not applied by us. */
  #appliedAt: number | null = null
  /** Last number on the present subscription. */
  #lastLive: number | null = null
  #lastLiveAt = 0
  #buffer: Arrival<Batch>[] = []
  #bufferedBytes = 0
  /** Times of the batches from #replayedFrom on that came by replay, to know them again when they come live. */
  #replayedFrom = 0
  #replayedAt: number[] = []
  #partial = false

  constructor(options: SequenceOptions, outputs: SequenceOutputs<Batch>) {
    this.#options = options
    this.#outputs = outputs
  }

  /** `unknown` while no subscription stands: nothing tells whether what is applied still holds. */
  get state(): 'live' | 'replaying' | 'unknown' {
    if (!this.#connected) return 'unknown'
    return this.#purpose === null || this.#purpose === 'reload' ? 'live' : 'replaying'
  }

  get lastApplied(): number | null {
    return this.#appliedAt === null || this.#next === null ? null : this.#next - 1
  }

  /** True where the engine may hold blocks that were announced before what is applied begins. */
  get partial(): boolean {
    return this.#partial
  }

  /** True while a failed load is to be tried again after a rest. */
  get reloadWanted(): boolean {
    return this.#reloadWanted
  }

  /** Begins anew from what somebody else has applied: it must be proved like what was before a lost subscription. */
  resume(position: EventPosition | null, partial: boolean): void {
    this.#connected = false
    this.#everConnected = position !== null
    this.#lastLive = null
    this.#resting = false
    this.#reloadWanted = false
    this.#forgetReplay()
    this.#next = position === null ? null : position.sequence + 1
    this.#appliedAt = position?.timestamp ?? null
    this.#partial = partial
  }

  /** @param isProved The process is known to be still the same, and nothing was missed. */
  connected(isProved = false): void {
    const first = !this.#everConnected
    this.#connected = true
    this.#everConnected = true
    this.#lastLive = null
    this.#resting = false
    this.#forgetReplay()
    if (isProved) return
    if (this.#options.replay) {
      const known = this.#appliedAt !== null
      // A partial state that a load is to replace is not worth proving.
      if (known && this.#reloadWanted) this.#clear('reload')
      this.#startReplay(known && !this.#reloadWanted ? 'verify' : 'load')
    } else if (!first) {
      this.#clear('unverified')
    }
  }

  disconnected(): void {
    if (!this.#connected) return
    this.#connected = false
    this.#lastLive = null
    if (this.#purpose !== null) this.#outputs.cancelReplay()
    this.#forgetReplay()
  }

  /** Forgets everything, and loads it again if the subscription stands and a replay can be had. */
  distrust(): void {
    this.#clear('distrust')
    this.#forgetReplay()
    if (this.#connected && this.#canReplay()) this.#startReplay('load')
    else {
      this.#outputs.cancelReplay()
      this.#reloadWanted = this.#options.replay
    }
  }

  /** A batch on the subscription. */
  live(arrival: Arrival<Batch>): void {
    const { sequence, timestamp } = arrival
    if (this.#lastLive !== null && sequence <= this.#lastLive) {
      if (sequence === this.#lastLive && Object.is(timestamp, this.#lastLiveAt)) this.#outputs.dropped('duplicate')
      else this.#restart(arrival)
      return
    }
    this.#lastLive = sequence
    this.#lastLiveAt = timestamp
    if (this.#purpose === 'verify' && !this.#progress && this.#next !== null && sequence < this.#next) {
      // A publisher never sends a number again, and what we had applied was sent before this subscription began.
      this.#restart(arrival)
      return
    }
    if (this.#next !== null && sequence < this.#next) {
      const older = this.state === 'replaying' && sequence < this.#replayedFrom
      if (older || this.#wasReplayed(sequence, timestamp)) this.#outputs.dropped('replayed')
      else this.#restart(arrival)
      return
    }
    if (this.#purpose === null) this.#advance(arrival)
    else {
      if (this.#purpose === 'reload') this.#applyDuringReload(arrival)
      this.#hold(arrival)
    }
  }

  /** A batch of the replay that was asked for last. */
  replayBatch(arrival: Arrival<Batch>): void {
    if (this.#purpose === null) {
      this.#outputs.dropped('stale_replay')
      return
    }
    if (!this.#progress && this.#joins() && !this.#join(arrival)) return
    if (this.#purpose === 'reload') {
      this.#clear('reload')
      this.#purpose = 'load'
    }
    const { sequence, timestamp } = arrival
    if (this.#next !== null && sequence < this.#next) {
      this.#outputs.dropped('stale_replay')
      return
    }
    const held = this.#heldAt(sequence)
    if (held !== null && !Object.is(held, timestamp)) {
      this.#restartByReplay()
      return
    }
    if (this.#next !== null && sequence > this.#next) this.#clear('gap')
    this.#noteReplayed(sequence, timestamp)
    this.#apply(arrival)
  }

  /** The replay's end mark. */
  replayEnd(): void {
    const purpose = this.#purpose
    if (purpose === null) return
    const brought = this.#progress
    this.#purpose = null
    if (purpose === 'load' || purpose === 'reload') this.#reloadWanted = false
    if (purpose === 'reload' && this.#next !== null) {
      this.#dropBuffer()
      return
    }
    if (purpose === 'verify' && !brought) {
      // The process that we knew had batches from there on.
      this.#restartByReplay()
      return
    }
    if (this.#next === null) {
      // The engine has sent nothing yet.
      this.#next = 0
      this.#partial = false
    }
    this.#drain(purpose !== 'gap' || brought)
  }

  /** The replay cannot be had, or not in time. */
  replayFailed(): void {
    const purpose = this.#purpose
    if (purpose === null) return
    this.#purpose = null
    this.#resting = true
    if (purpose === 'reload') {
      this.#dropBuffer()
      return
    }
    const upToDate = this.#next !== null && (this.#buffer[0]?.sequence ?? Infinity) <= this.#next && this.#progress
    if (purpose === 'load' && this.#next === null) this.#partial = true
    else if (!upToDate) this.#clear(purpose === 'verify' ? 'unverified' : 'gap')
    this.#drain(false)
    this.#reloadWanted = this.#partial
  }

  /** The rest after a failed replay is over. */
  restOver(): void {
    this.#resting = false
    if (this.#connected && this.#reloadWanted && this.#purpose === null && this.#options.replay)
      this.#startReplay('reload')
  }

  #canReplay(): boolean {
    return this.#options.replay && !this.#resting
  }

  #startReplay(purpose: Purpose): void {
    this.#purpose = purpose
    this.#progress = false
    if (purpose === 'load') this.#next = null
    const from = purpose === 'load' || purpose === 'reload' ? 0 : (this.#next ?? 0) - (this.#joins() ? 1 : 0)
    this.#outputs.requestReplay(from)
  }

  #forgetReplay(): void {
    this.#purpose = null
    this.#dropBuffer()
    this.#replayedAt = []
  }

  #dropBuffer(): void {
    this.#buffer = []
    this.#bufferedBytes = 0
  }

  #clear(reason: ClearReason): void {
    this.#next = null
    this.#appliedAt = null
    this.#partial = true
    this.#outputs.clear(reason)
  }

  /** A gap that cannot be repaired, or not now. */
  #giveUp(): void {
    this.#outputs.gap()
    this.#clear('gap')
    if (this.#resting) this.#reloadWanted = true
  }

  #apply(arrival: Arrival<Batch>): void {
    if (this.#next === null) this.#partial = arrival.sequence > 0
    this.#next = arrival.sequence + 1
    this.#appliedAt = arrival.timestamp
    this.#outputs.apply(arrival)
  }

  /** Whether this very batch came by replay. */
  #wasReplayed(sequence: number, timestamp: number): boolean {
    return Object.is(this.#replayedAt[sequence - this.#replayedFrom], timestamp)
  }

  /** Time of the batch of this number that is held back, by bisection: live numbers only grow. */
  #heldAt(sequence: number): number | null {
    let low = 0
    let high = this.#buffer.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const held = this.#buffer[middle]
      if (held === undefined || held.sequence >= sequence) high = middle
      else low = middle + 1
    }
    const found = this.#buffer[low]
    return found?.sequence === sequence ? found.timestamp : null
  }

  /** A live batch with nothing held back before it. */
  #advance(arrival: Arrival<Batch>): void {
    if (this.#next === null) {
      this.#apply(arrival)
    } else if (arrival.sequence === this.#next) {
      this.#apply(arrival)
      // Live numbers only grow, so nothing that was replayed can come once more.
      if (this.#replayedAt.length > 0) this.#replayedAt = []
    } else {
      if (this.#canReplay()) {
        this.#outputs.gap()
        this.#hold(arrival)
        this.#startReplay('gap')
      } else {
        this.#giveUp()
        this.#apply(arrival)
      }
    }
  }

  /** During a reload the partial state goes on as if there were none. */
  #applyDuringReload(arrival: Arrival<Batch>): void {
    if (this.#next !== null && arrival.sequence !== this.#next) {
      this.#giveUp()
    }
    this.#apply(arrival)
  }

  #hold(arrival: Arrival<Batch>): void {
    const { maxBufferedBatches, maxBufferedBytes } = this.#options
    if (this.#buffer.length >= maxBufferedBatches || this.#bufferedBytes + arrival.bytes > maxBufferedBytes) {
      this.#outputs.dropped('buffer_full')
      return
    }
    this.#buffer.push(arrival)
    this.#bufferedBytes += arrival.bytes
  }

  /** Whether the replay has to be joined to what is applied. */
  #joins(): boolean {
    return (this.#purpose === 'gap' || this.#purpose === 'verify') && this.#appliedAt !== null
  }

  /** The first batch of a replay that has to be joined; true where it is still to be applied. */
  #join(arrival: Arrival<Batch>): boolean {
    const last = (this.#next ?? 0) - 1
    const { sequence, timestamp } = arrival
    if (sequence > last) {
      // The engine no longer keeps the batch that would prove it the same.
      if (this.#purpose === 'verify') this.#clear('unverified')
      return true
    }
    if (sequence < last) this.#outputs.dropped('stale_replay')
    else if (Object.is(timestamp, this.#appliedAt)) this.#noteReplayed(sequence, timestamp)
    else this.#restartByReplay()
    return false
  }

  #noteReplayed(sequence: number, timestamp: number): void {
    this.#progress = true
    if (this.#replayedAt.length === 0 || sequence !== this.#replayedFrom + this.#replayedAt.length) {
      this.#replayedFrom = sequence
      this.#replayedAt = []
    }
    this.#replayedAt.push(timestamp)
  }

  /** Applies what was held back. With `again`, what is found missing is asked for; else it clears. */
  #drain(again: boolean): void {
    const held = this.#buffer
    this.#dropBuffer()
    for (const [index, arrival] of held.entries()) {
      const { sequence } = arrival
      if (this.#next !== null && sequence < this.#next) {
        // The replay brought it too, and it was compared then.
        this.#outputs.dropped('replayed')
        continue
      }
      if (this.#next !== null && sequence > this.#next) {
        if (again && this.#canReplay()) {
          for (const later of held.slice(index)) this.#hold(later)
          this.#startReplay('gap')
          return
        }
        this.#giveUp()
      }
      this.#apply(arrival)
    }
    this.#askForDropped(again)
  }

  /** Batches that came when the buffer was full are known by their numbers only. */
  #askForDropped(again: boolean): void {
    if (this.#lastLive === null || this.#next === null || this.#next > this.#lastLive) return
    if (again && this.#canReplay()) {
      this.#startReplay('gap')
      return
    }
    this.#giveUp()
    this.#next = this.#lastLive + 1
  }

  /** A live number that goes back: what is applied or held is of a process that is gone. */
  #restart(arrival: Arrival<Batch>): void {
    this.#lastLive = arrival.sequence
    this.#lastLiveAt = arrival.timestamp
    this.#resting = false
    const replaying = this.#purpose !== null
    this.#forgetReplay()
    this.#outputs.restart()
    this.#clear('restart')
    if (arrival.sequence > 0 && this.#canReplay()) {
      this.#hold(arrival)
      this.#startReplay('load')
      return
    }
    if (replaying) this.#outputs.cancelReplay()
    this.#apply(arrival)
  }

  /** The replay proves that the process is another one; what it sends from 0 on is that one's. */
  #restartByReplay(): void {
    this.#forgetReplay()
    this.#outputs.restart()
    this.#clear('restart')
    this.#startReplay('load')
  }
}
