/**
 * Engine hashes whose blocks the map gave up for its budget: a child of one is refused, not kept as an orphan. A fixed
 * table in which a newer hash takes an older one's place, so one may be forgotten; its children then wait as orphans.
 */
export class Tombstones {
  readonly #marks: Int32Array

  constructor(budgetBytes: number) {
    // A thousandth of the budget, as a power of two.
    const words = 2 ** Math.max(4, Math.floor(Math.log2(budgetBytes / 4096)))
    this.#marks = new Int32Array(words)
  }

  get bytes(): number {
    return this.#marks.byteLength
  }

  /** `first` and `second` as an alias record has them, which tell workers and their restarts apart. */
  add(first: number, second: number): void {
    this.#marks[this.#place(first)] = mark(first, second)
  }

  has(first: number, second: number): boolean {
    return this.#marks[this.#place(first)] === mark(first, second)
  }

  delete(first: number, second: number): void {
    if (this.has(first, second)) this.#marks[this.#place(first)] = 0
  }

  #place(first: number): number {
    return first & (this.#marks.length - 1)
  }
}

/** Never 0, which marks an unused place. */
function mark(first: number, second: number): number {
  return Math.imul(second ^ (first >>> 7), 0x9e3779b1) ^ first || 1
}
