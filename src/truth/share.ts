/** A share of something that is wrong, in which older observations fade. */
export class Share {
  readonly #fadesOver: number
  /** Observations, none of them faded. */
  observed = 0
  /** Of them, those with something wrong; faded. */
  wrongs = 0
  #total = 0
  #wrong = 0

  /** @param fadesOver observations after which an older one counts a third */
  constructor(fadesOver: number) {
    this.#fadesOver = fadesOver
  }

  add(total: number, wrong: number): void {
    const kept = 1 - 1 / this.#fadesOver
    this.observed++
    this.wrongs = this.wrongs * kept + (wrong > 0 ? 1 : 0)
    this.#total = this.#total * kept + total
    this.#wrong = this.#wrong * kept + wrong
  }

  /** 0 while there is nothing to judge by. */
  get wrongShare(): number {
    return this.#total === 0 ? 0 : this.#wrong / this.#total
  }

  forget(): void {
    this.observed = 0
    this.wrongs = 0
    this.#total = 0
    this.#wrong = 0
  }
}
