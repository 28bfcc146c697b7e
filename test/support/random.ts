/** Seeded numbers for tests and benches, so that their data is named by one seed. */

/** 32-bit words; small state, fast, and the same on every machine (mulberry32). */
export function randomWords(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let word = Math.imul(state ^ (state >>> 15), state | 1)
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61)
    return (word ^ (word >>> 14)) >>> 0
  }
}

/** The same as numbers in [0, 1), in place of Math.random. */
export function seededRandom(seed: number): () => number {
  const next = randomWords(seed)
  return () => next() / 2 ** 32
}
