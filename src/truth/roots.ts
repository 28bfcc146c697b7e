import type { RootBlock } from '../kv/root-block.ts'

const remembered = 512

/**
 * The first blocks that a worker announced last, by a hash of their tokens alone: a prompt that its engine stored under
 * another adapter or salt than ours is found here, and tells which. Fixed size, the oldest is overwritten.
 */
export class RecentRoots {
  readonly #low = new Uint32Array(remembered)
  readonly #high = new Uint32Array(remembered)
  readonly #adapters: (string | null)[] = []
  readonly #salts: (string | null)[] = []
  #next = 0
  #count = 0

  add({ plainLow, plainHigh, adapter, extras }: RootBlock): void {
    const at = this.#next
    this.#low[at] = plainLow
    this.#high[at] = plainHigh
    this.#adapters[at] = adapter
    this.#salts[at] = extras.length === 0 ? null : saltOf(extras)
    this.#next = (at + 1) % remembered
    if (this.#count < remembered) this.#count++
  }

  clear(): void {
    this.#count = 0
    this.#next = 0
    this.#adapters.length = 0
    this.#salts.length = 0
  }

  /** In what the announcements of these tokens differ from the prompt; `same`: in nothing, null: there are none. */
  difference(
    plainLow: number,
    plainHigh: number,
    adapter: string | null,
    salt: string | null,
  ): 'same' | 'adapter' | 'salt' | null {
    let differs: 'adapter' | 'salt' | null = null
    for (let at = 0; at < this.#count; at++) {
      if (this.#low[at] !== plainLow || this.#high[at] !== plainHigh) continue
      if (this.#adapters[at] === adapter) {
        if (this.#salts[at] === salt) return 'same'
        differs = 'salt'
      } else differs ??= 'adapter'
    }
    return differs
  }
}

function saltOf(extras: readonly string[]): string | null {
  return extras.find((extra) => extra.startsWith('salt:'))?.slice(5) ?? null
}
