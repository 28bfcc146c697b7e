/** FNV-1a, 32 bits, signed. */
export function hashOfText(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return hash
}

/** Every bit of the argument moves about half of the result's (the finalizer of MurmurHash3); 0 … 2^32 − 1. */
export function mixed(value: number): number {
  let hash = value
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}

/**
 * Weight of a worker for something that is hashed, in rendezvous hashing: all replicas that know the same workers find the
 * same one heaviest, and where it is gone only what was on it moves.
 */
export class RendezvousWeights {
  readonly #hashes = new Map<number, number>()

  /** @param id the worker's name, which is equal on all replicas; its serial is not */
  of(hash: number, serial: number, id: string): number {
    let own = this.#hashes.get(serial)
    if (own === undefined) {
      // Workers that are long gone are not kept in mind.
      if (this.#hashes.size >= 4096) this.#hashes.clear()
      own = hashOfText(id)
      this.#hashes.set(serial, own)
    }
    return mixed(hash ^ own)
  }
}
