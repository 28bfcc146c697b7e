/** Kinds of trouble that are told apart; further ones count as others. */
const mostKinds = 20

/** What went wrong in runs over HTTP, and how often. */
export class Troubles {
  readonly #counts = new Map<string, number>()
  #others = 0

  add(kind: string): void {
    const count = this.#counts.get(kind)
    if (count === undefined && this.#counts.size >= mostKinds) this.#others++
    else this.#counts.set(kind, (count ?? 0) + 1)
  }

  /** A line each, the most frequent first. */
  get lines(): string[] {
    const lines = [...this.#counts].sort(([, a], [, b]) => b - a).map(([kind, count]) => `${count} × ${kind}`)
    return this.#others === 0 ? lines : [...lines, `${this.#others} × others`]
  }
}
