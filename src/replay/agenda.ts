/** What is to happen when, in the order of time and, within one instant, of being entered. */
export class Agenda {
  readonly #entries: { readonly atMs: number; readonly run: () => void }[] = []

  /** Infinity when nothing is left. */
  get nextMs(): number {
    return this.#entries[0]?.atMs ?? Infinity
  }

  at(atMs: number, run: () => void): void {
    let low = 0
    let high = this.#entries.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#entries[middle] as { atMs: number }).atMs <= atMs) low = middle + 1
      else high = middle
    }
    this.#entries.splice(low, 0, { atMs, run })
  }

  /** Runs all entries up to this time, also those that they enter. */
  run(nowMs: number): void {
    while (this.nextMs <= nowMs) this.#entries.shift()?.run()
  }
}
