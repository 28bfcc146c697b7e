import type { PolicyFleet } from '../policy.ts'

/**
 * Workers on a ring, each at many places that follow from its id alone: when one comes or goes, only the keys that fall to it
 * change their worker, and every replica of the router sees the same ring. Workers that are away keep their places.
 */
export class HashRing {
  readonly #virtualNodes: number
  readonly #known = new Map<number, string>()
  #places = new Uint32Array(0)
  #serials = new Int32Array(0)

  constructor(virtualNodes: number) {
    this.#virtualNodes = virtualNodes
  }

  /** The first candidate at or after the key's place that is kept. At least one is. */
  next(key: number, fleet: PolicyFleet, keep: Uint8Array): number {
    this.#follow(fleet)
    const { length } = this.#places
    const start = firstAtOrAfter(this.#places, key)
    for (let step = 0; step < length; step++) {
      const candidate = fleet.serials.indexOf(this.#serials[(start + step) % length] as number)
      if (candidate !== -1 && candidate < fleet.count && keep[candidate] === 1) return candidate
    }
    return keep.indexOf(1)
  }

  #follow({ count, serials, ids }: PolicyFleet): void {
    let isNew = false
    for (let i = 0; i < count; i++) {
      const serial = serials[i] as number
      if (this.#known.has(serial)) continue
      this.#known.set(serial, ids[i] ?? '')
      isNew = true
    }
    if (!isNew) return
    // Those that are gone for good would else pile up.
    const present = new Set(serials.subarray(0, count))
    const isFull = this.#known.size > 2 * count + 64
    for (const serial of this.#known.keys()) if (isFull && !present.has(serial)) this.#known.delete(serial)
    this.#build()
  }

  #build(): void {
    const nodes: { place: number; serial: number }[] = []
    for (const [serial, id] of this.#known)
      for (let node = 0; node < this.#virtualNodes; node++) nodes.push({ place: hashOf(`${id}:${node}`), serial })
    nodes.sort((a, b) => a.place - b.place || a.serial - b.serial)
    this.#places = Uint32Array.from(nodes, ({ place }) => place)
    this.#serials = Int32Array.from(nodes, ({ serial }) => serial)
  }
}

/** FNV-1a over UTF-16 units, mixed once more as MurmurHash3 ends: 32 bits. */
export function hashOf(text: string): number {
  let hash = 0x811c_9dc5
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x0100_0193)
  return mixed(hash)
}

/** The same for the name of a block, given by its two words. */
export function hashOfWords(low: number, high: number): number {
  return mixed(low ^ Math.imul(high, 0x9e37_79b1))
}

function mixed(word: number): number {
  let hash = Math.imul(word ^ (word >>> 16), 0x85eb_ca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}

function firstAtOrAfter(places: Uint32Array, key: number): number {
  let low = 0
  let high = places.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((places[middle] as number) < key) low = middle + 1
    else high = middle
  }
  return low
}
