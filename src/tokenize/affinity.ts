/**
 * Remembers which thread tokenized a conversation, by samples of its body's beginning, so that the next turn finds that
 * thread's token cache. A wrong guess costs a cache miss, never a wrong token, so a sparse sample is enough.
 */
export class Affinity {
  readonly #limit: number
  readonly #threads = new Map<number, number>()

  /** @param limit names kept; a conversation takes one for each doubling of its length beyond 32 KiB */
  constructor(limit: number) {
    this.#limit = limit
  }

  /** The thread that saw the longest beginning of a body, null if none did. The names are those of `beginnings`. */
  find(names: readonly number[]): number | null {
    for (let index = names.length - 1; index >= 0; index -= 1) {
      const thread = this.#threads.get(names[index] as number)
      if (thread !== undefined) return thread
    }
    return null
  }

  note(names: readonly number[], thread: number): void {
    for (const name of names) {
      this.#threads.delete(name)
      this.#threads.set(name, thread)
    }
    for (const oldest of this.#threads.keys()) {
      if (this.#threads.size <= this.#limit) break
      this.#threads.delete(oldest)
    }
  }
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
