/** One part in so many of the budget is left to tables that must grow after entries have taken the rest. */
const looseShare = 16
/** With less than one part in so many left, tables grow in small steps. */
const scarceShare = 8

/** The bytes that the map has taken into use, against the most it may (decision 8). */
export class Budget {
  readonly limitBytes: number
  readonly #looseBytes: number
  readonly #scarceBytes: number
  #usedBytes = 0

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes
    this.#looseBytes = limitBytes - Math.floor(limitBytes / looseShare)
    this.#scarceBytes = limitBytes - Math.floor(limitBytes / scarceShare)
  }

  get usedBytes(): number {
    return this.#usedBytes
  }

  get isScarce(): boolean {
    return this.#usedBytes > this.#scarceBytes
  }

  /** Takes bytes if they fit; false leaves everything as it was. */
  take(bytes: number): boolean {
    if (this.#usedBytes + bytes > this.limitBytes) return false
    this.#usedBytes += bytes
    return true
  }

  /** The same for what can do without: it leaves the last part of the budget alone. */
  takeLoosely(bytes: number): boolean {
    return this.#usedBytes + bytes <= this.#looseBytes && this.take(bytes)
  }

  give(bytes: number): void {
    this.#usedBytes -= bytes
  }
}
