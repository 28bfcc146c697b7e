/**
 * Remembers which thread tokenized a conversation, by samples of its body's beginning, so that the next turn finds that
 * thread's token cache. A wrong guess costs a cache miss, never a wrong token, so a sparse sample is enough.
 */
export class Affinity {
  readonly #limit: number
  readonly #seen = new Map<number, Seen>()

  /** @param limit names kept; a conversation takes one for each doubling of its length beyond 32 KiB */
  constructor(limit: number) {
    this.#limit = limit
  }

  /** Where the longest beginning of a body was seen, null if none was. The names are those of `beginnings`. */
  find(names: readonly number[]): Seen | null {
    for (let index = names.length - 1; index >= 0; index -= 1) {
      const seen = this.#seen.get(names[index] as number)
      if (seen !== undefined) return seen
    }
    return null
  }

  note(names: readonly number[], seen: Seen): void {
    for (const name of names) {
      this.#seen.delete(name)
      this.#seen.set(name, seen)
    }
    for (const oldest of this.#seen.keys()) {
      if (this.#seen.size <= this.#limit) break
      this.#seen.delete(oldest)
    }
  }
}

/** Where a conversation was tokenized last, and for which pool. */
export interface Seen {
  readonly thread: number
  readonly pool: string
}

const shortestBytes = 16 * 1024
const sampleEveryBytes = 512
const sampledBytes = 8

/** Hashes of samples of a body's first 16 KiB, 32 KiB, 64 KiB, …: names under which its conversation is found again. */
export function beginnings(body: Uint8Array): number[] {
  const names: number[] = []
  let hash = 0x811c9dc5
  let next = shortestBytes
  for (let at = 0; at + sampledBytes <= body.length; at += sampleEveryBytes) {
    if (at >= next) {
      names.push((hash >>> 0) * 64 + names.length)
      next *= 2
    }
    for (let index = at; index < at + sampledBytes; index += 1)
      hash = Math.imul(hash ^ (body[index] as number), 0x01000193)
  }
  return names
}
