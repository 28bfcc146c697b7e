import assert from 'node:assert/strict'
import { isDeepStrictEqual } from 'node:util'

/** What was checked and measured. A failed check is told and the run goes on: the rest is worth knowing, too. */
export class Report {
  readonly failures: string[] = []
  #checks = 0
  readonly #startMs = performance.now()

  say(line: string): void {
    const seconds = ((performance.now() - this.#startMs) / 1000).toFixed(1).padStart(6)
    console.log(`${seconds} s  ${line}`)
  }

  section(title: string): void {
    console.log(`\n== ${title}`)
  }

  /** One fact that must hold; `detail` tells what was found. */
  check(fact: string, holds: boolean, detail = ''): boolean {
    this.#checks++
    const told = detail === '' ? fact : `${fact} (${detail})`
    if (!holds) this.failures.push(told)
    this.say(`${holds ? 'ok    ' : 'FAILED'} ${told}`)
    return holds
  }

  equal(fact: string, actual: unknown, expected: unknown): boolean {
    const same = isDeepStrictEqual(actual, expected)
    return this.check(fact, same, same ? short(actual) : `${short(actual)}, expected ${short(expected)}`)
  }

  /** Throws if any check failed. */
  end(): void {
    console.log(`\n${this.#checks} checks, ${this.failures.length} failed`)
    for (const failure of this.failures) console.log(`FAILED ${failure}`)
    assert.equal(this.failures.length, 0, `${this.failures.length} checks failed`)
  }
}

function short(value: unknown): string {
  const text = JSON.stringify(value)
  return text.length > 200 ? `${text.slice(0, 200)}…` : text
}
