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
    const done = ++this.#done
    const width = 30
    const share = Math.min(1, done / this.#expected)
    const bar = '█'.repeat(Math.round(share * width)).padEnd(width, '░')
    // Searches for a limit take as many runs as they take.
    const told = done <= this.#expected ? `${done} of ${this.#expected} runs` : `${done} runs, looking for limits`
    this.#write(`\r${bar} ${told}   `)
  }

  clear(): void {
    this.#write('\r\u001b[K')
  }
}
