import type { TestContext } from 'node:test'
import { randomWords } from './random.ts'

/** Seconds that each fuzz test takes: few by default, as many as one likes by the environment. */
const seconds = Number(process.env['WARMROUTE_FUZZ_SECONDS'] ?? 5)
/** Named by a failure; the same seed makes the same inputs. */
const firstSeed = Number(process.env['WARMROUTE_FUZZ_SEED'] ?? 1)

/** Choices drawn from one seed. */
export class Chance {
  readonly #word: () => number

  constructor(seed: number) {
    this.#word = randomWords(seed)
  }

  /** A whole number in [0, below). */
  below(below: number): number {
    return this.#word() % below
  }

  /** True once in `times`. */
  oneIn(times: number): boolean {
    return this.below(times) === 0
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)] as Item
  }

  /** So many items, mostly few. */
  list<Item>(most: number, item: () => Item): Item[] {
    return Array.from({ length: this.oneIn(4) ? this.below(most + 1) : this.below(Math.min(most, 4) + 1) }, item)
  }

  bytes(most: number): Buffer {
    return Buffer.from(Array.from({ length: this.below(most + 1) }, () => this.below(256)))
  }

  /** The bytes with a few of them changed, cut out, doubled or replaced by what `splice` gives. */
  mutated(bytes: Buffer, splice: () => Buffer = () => this.bytes(8)): Buffer {
    let mutant = bytes
    for (let change = this.below(4); change >= 0; change--) {
      const at = this.below(mutant.length + 1)
      const end = Math.min(mutant.length, at + (this.oneIn(3) ? this.below(64) : this.below(3)))
      const middle = this.pick([
        () => Buffer.from([this.below(256)]),
        splice,
        () => mutant.subarray(at, end),
        () => Buffer.alloc(0),
      ])()
      const doubled = this.oneIn(4) ? mutant.subarray(at, end) : Buffer.alloc(0)
      mutant = Buffer.concat([mutant.subarray(0, at), middle, doubled, mutant.subarray(end)])
    }
    return mutant
  }
}

/**
 * Runs `once` with ever new chances until the time is over; every run has a seed of its own, which a failure names, so that
 * WARMROUTE_FUZZ_SEED=… alone repeats it. Counts are reported by the test.
 */
export async function fuzz(t: TestContext, once: (chance: Chance) => void | Promise<void>): Promise<void> {
  const endMs = performance.now() + seconds * 1000
  let seed = firstSeed
  for (; performance.now() < endMs; seed++) {
    try {
      const running = once(new Chance(seed))
      if (running !== undefined) await running
      // Sockets and timers of a test want their turn too.
      else if (seed % 1024 === 0) await new Promise((resolve) => setImmediate(resolve))
    } catch (cause) {
      throw new Error(`found by WARMROUTE_FUZZ_SEED=${seed}`, { cause })
    }
  }
  t.diagnostic(`${seed - firstSeed} inputs, seeds ${firstSeed} to ${seed - 1}`)
}
