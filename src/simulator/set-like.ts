import type { BlockStored, KvEvent } from './kv-event.ts'

/**
 * Turns the events of a cache that counts its copies, as vLLM's does, into those of one where a block is there or not, as in
 * SGLang's tree: a second copy is not told, nor is its end while the first one stays.
 */
export class SetLike {
  readonly #copies = new Map<string, number>()

  of(events: readonly KvEvent[]): readonly KvEvent[] {
    return events.flatMap((event) => {
      switch (event.kind) {
        case 'stored':
          return this.#stored(event)
        case 'removed':
          return this.#left(`${event.tier} ${event.high} ${event.low}`) ? [event] : []
        case 'cleared':
          this.#copies.clear()
          return [event]
        default:
          return event satisfies never
      }
    })
  }

  /** The runs of blocks that were not there before. */
  #stored(event: BlockStored): readonly KvEvent[] {
    const blocks = event.hashes.length / 2
    const runs: BlockStored[] = []
    let start = 0
    const end = (block: number): void => {
      if (block > start) runs.push(part(event, start, block))
      start = block + 1
    }
    for (let block = 0; block < blocks; block++) {
      const name = `${event.tier} ${event.hashes[2 * block + 1] ?? 0} ${event.hashes[2 * block] ?? 0}`
      const copies = this.#copies.get(name) ?? 0
      this.#copies.set(name, copies + 1)
      if (copies > 0) end(block)
    }
    end(blocks)
    return runs
  }

  /** Whether this was the last copy. */
  #left(name: string): boolean {
    const copies = (this.#copies.get(name) ?? 1) - 1
    if (copies > 0) this.#copies.set(name, copies)
    else this.#copies.delete(name)
    return copies <= 0
  }
}

function part(event: BlockStored, first: number, end: number): BlockStored {
  const { hashes, tokens, blockSize } = event
  return {
    ...event,
    hashes: hashes.subarray(2 * first, 2 * end),
    parent: first === 0 ? event.parent : [hashes[2 * first - 2] as number, hashes[2 * first - 1] as number],
    tokens: tokens.subarray(first * blockSize, end * blockSize),
    fromStart: first === 0 && event.fromStart,
  }
}
