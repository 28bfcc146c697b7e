import type { Dispatch, PolicyHooks } from '../routing/policy.ts'
import type { SharedRecord } from './shared-record.ts'
import type { SharedWorkers } from './shared-workers.ts'

export interface PublishedDispatchesOptions {
  readonly workers: SharedWorkers
  /** False where nobody can be told now. */
  readonly tell: (record: SharedRecord) => boolean
}

/** Tells other replicas of each request that we send what our own policy is told of it. */
export class PublishedDispatches implements PolicyHooks {
  readonly #o: PublishedDispatchesOptions
  readonly #published = new Map<Dispatch, number>()
  #last = 0

  constructor(options: PublishedDispatchesOptions) {
    this.#o = options
  }

  onDispatched(dispatch: Dispatch): void {
    const worker = this.#o.workers.withSerial(dispatch.serial)
    if (worker === undefined) return
    const {
      stream,
      promptTokens,
      uncachedTokens,
      loadTokens = 0,
      prefillTokensAhead,
      requestsAhead,
      session,
    } = dispatch
    const number = ++this.#last
    const told = this.#o.tell({
      ...{ kind: 'dispatched', number, worker: worker.id, stream, promptTokens, uncachedTokens, loadTokens },
      ...{ prefillTokensAhead, requestsAhead, session },
    })
    if (told) this.#published.set(dispatch, number)
  }

  onFirstByte(dispatch: Dispatch, ttftMs: number): void {
    const number = this.#published.get(dispatch)
    if (number !== undefined) this.#o.tell({ kind: 'firstByte', number, ttftMs })
  }

  onFinished(dispatch: Dispatch): void {
    const number = this.#published.get(dispatch)
    if (number === undefined) return
    this.#published.delete(dispatch)
    this.#o.tell({ kind: 'finished', number })
  }

  /** Nobody hears us: what was told is taken back when they do again. */
  forget(): void {
    this.#published.clear()
  }
}
