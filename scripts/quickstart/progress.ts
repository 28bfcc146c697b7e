/** Tells how far something is: one line written anew on a terminal, a plain line for each quarter elsewhere. */
export class Progress {
  readonly #out: NodeJS.WriteStream
  readonly #label: string
  readonly #total: number
  #shownQuarters = -1

  constructor(out: NodeJS.WriteStream, label: string, total: number) {
    this.#out = out
    this.#label = label
    this.#total = total
    this.show(0)
  }

  show(done: number): void {
    const text = `  ${this.#label}  ${String(done).padStart(String(this.#total).length)} / ${this.#total} requests`
    if (this.#out.isTTY) {
      this.#out.write(`\r\u001b[2K${text}`)
      return
    }
    const quarters = Math.floor((done / this.#total) * 4)
    if (quarters === this.#shownQuarters) return
    this.#shownQuarters = quarters
    this.#out.write(`${text}\n`)
  }

  /** Leaves the last state on the terminal. */
  end(): void {
    if (this.#out.isTTY) this.#out.write('\n')
  }
}
