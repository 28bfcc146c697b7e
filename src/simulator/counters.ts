import type { ServerResponse } from 'node:http'

/** Requests of one life of a simulated process, as GET /simulator/counters tells them. */
export class Counters {
  readonly #monotonicMs: () => number
  readonly #byPath = new Map<string, number>()
  /** Answers that the server itself broke: their end says nothing about the client. */
  readonly #severed = new WeakSet<ServerResponse>()
  #running = 0
  #aborted = 0
  #lastAbortMs: number | null = null

  /** @param monotonicMs the machine's clock, so that times of different processes can be compared */
  constructor(monotonicMs: () => number) {
    this.#monotonicMs = monotonicMs
  }

  /** @param path the route, never the client's own text: the number of routes bounds the map */
  begin(path: string, response: ServerResponse): void {
    this.#byPath.set(path, (this.#byPath.get(path) ?? 0) + 1)
    this.#running++
    response.once('close', () => {
      this.#running--
      if (response.writableFinished || this.#severed.has(response)) return
      this.#aborted++
      this.#lastAbortMs = this.#monotonicMs()
    })
  }

  /** Breaks a connection from this side, once what was written has gone out. */
  sever(response: ServerResponse): void {
    this.#severed.add(response)
    if (response.headersSent) response.socket?.destroySoon()
    else response.destroy()
  }

  /** Requests by path; those running now; those whose client left before its answer ended, and when the last of them did. */
  get figures() {
    return {
      requests: Object.fromEntries(this.#byPath),
      running: this.#running,
      aborted: this.#aborted,
      lastAbortMs: this.#lastAbortMs,
      nowMs: this.#monotonicMs(),
    }
  }
}
