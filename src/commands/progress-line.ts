import type { CommandIo } from './command.ts'

/** One line on a terminal that tells how much is done; nothing elsewhere. */
export class ProgressLine {
  readonly #expected: number
  readonly #write: (text: string) => void
  #done = 0

  constructor(io: CommandIo, expected: number) {
    this.#expected = expected
    this.#write = io.progress ?? (() => undefined)
  }

  done(): void {
    this.#done++
    this.#tell('')
  }

  /** How far the run under way is. */
  within(run: string): void {
    this.#tell(`, ${run}`)
  }

  clear(): void {
    this.#write('\r\u001b[K')
  }

  #tell(more: string): void {
    const width = 30
    const share = Math.min(1, this.#done / this.#expected)
    const bar = '█'.repeat(Math.round(share * width)).padEnd(width, '░')
    // Searches for a limit take as many runs as they take.
    const runs = `${this.#done} of ${this.#expected} runs`
    const told = this.#done <= this.#expected ? runs : `${this.#done} runs, looking for limits`
    this.#write(`\r${bar} ${told}${more}\u001b[K`)
  }
}
