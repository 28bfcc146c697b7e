/** Waits that can be cut short, one at a time. */
export class Sleep {
  #hasEnded = false
  #cut: () => void = () => undefined

  of(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, this.#hasEnded ? 0 : ms)
      this.#cut = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  /** Ends the one that lasts now. */
  cut(): void {
    this.#cut()
  }

  /** Ends it, and no further one takes time. */
  end(): void {
    this.#hasEnded = true
    this.#cut()
  }
}
