import type { SharedMessage } from './shared-record.ts'

/** Others that are heard at a time; of a further one nothing is believed until one of them has gone. */
export const mostReplicas = 64

export interface ReplicasOptions {
  /** This replica, whose own messages come back to it. */
  readonly own: string
  /** Silence after which a replica is gone. Read anew each time. */
  readonly ttlMs: () => number
  readonly onGone: (replica: string) => void
}

interface Heard {
  counter: number
  heardAtMs: number
}

/** Which other replicas there are, by this one's own clock, and which of their messages are news. */
export class Replicas {
  readonly #o: ReplicasOptions
  readonly #heard = new Map<string, Heard>()

  constructor(options: ReplicasOptions) {
    this.#o = options
  }

  /** Whether the message is to be believed: not our own, not older than what its replica said before. */
  accept({ replica, counter }: SharedMessage, nowMs: number): boolean {
    if (replica === this.#o.own) return false
    const heard = this.#heard.get(replica)
    if (heard === undefined) {
      if (this.#heard.size >= mostReplicas) return false
      this.#heard.set(replica, { counter, heardAtMs: nowMs })
      return true
    }
    if (counter <= heard.counter) return false
    heard.counter = counter
    heard.heardAtMs = Math.max(heard.heardAtMs, nowMs)
    return true
  }

  bye(replica: string): void {
    if (this.#heard.delete(replica)) this.#o.onGone(replica)
  }

  /** Lets those go that were silent for too long. */
  expire(nowMs: number): void {
    for (const [replica, { heardAtMs }] of this.#heard) if (nowMs - heardAtMs > this.#o.ttlMs()) this.bye(replica)
  }

  list(): string[] {
    return [...this.#heard.keys()]
  }
}
