/** A stream of numbers that is wholly determined by its seed. */
export interface Random {
  /** Uniform in [0, 1). */
  next(): number
  /** A whole number in [0, limit). */
  below(limit: number): number
  /** Exponentially distributed with the given mean, as pauses between independent arrivals are. */
  exponential(mean: number): number
}

/** A counter run through a 32-bit finaliser: tiny state, and equal seeds make equal streams on every machine. */
export function seededRandom(seed: number): Random {
  let state = mix32(seed)
  const next = (): number => {
    state = (state + 0x9e3779b9) | 0
    return (mix32(state) >>> 0) / 4294967296
  }
  return {
    next,
    below: (limit) => Math.floor(next() * limit),
    exponential: (mean) => -mean * Math.log(1 - next()),
  }
}

/** A bijection of 32-bit words in which every input bit moves about half of the output bits. */
export function mix32(word: number): number {
  let x = word | 0
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad)
  x = Math.imul(x ^ (x >>> 15), 0x735a2d97)
  return x ^ (x >>> 15)
}
