import type { KvEvent, KvRemove } from '../kv/batch.ts'

/** When blocks are taken for gone whose source says what it stores and never what it removes. */
export interface ForgetLimit {
  /** After so long without being stored again; 0: never. */
  readonly afterMs: number
  /** Beyond so many tokens, those that were stored longest ago. */
  readonly tokens: number
}

interface Kept {
  readonly low: number
  readonly high: number
  readonly group: number
  readonly atMs: number
}

/** Blocks that are remembered of one source and tier, whatever its limits; the oldest go first. */
const mostRecords = 262_144

/**
 * Remembers when blocks were stored, tier by tier, and makes the removals that their source does not send. The first
 * removal that it does send ends that: from then on the source is believed.
 */
export class Forgetting {
  readonly #limits: readonly (ForgetLimit | undefined)[]
  /** By tier, then by hash and group, stored longest ago first; null where the source tells itself. */
  readonly #kept: (Map<string, Kept> | null | undefined)[] = []

  /** @param limits By tier; tiers without one are left alone. */
  constructor(limits: readonly (ForgetLimit | undefined)[]) {
    this.#limits = limits
  }

  /** Whether the source has told of removals in any tier. */
  get isTold(): boolean {
    return this.#kept.includes(null)
  }

  /** Tiers whose source tells of removals; null: of some blocks is remembered when they were stored. */
  get toldTiers(): readonly number[] | null {
    const tiers: number[] = []
    for (const [tier, kept] of this.#kept.entries()) {
      if (kept === null) tiers.push(tier)
      else if (kept !== undefined && kept.size > 0) return null
    }
    return tiers
  }

  /** Begins with what another one had seen of the same source. */
  recall(toldTiers: readonly number[]): void {
    for (const tier of toldTiers) if (this.#limits[tier] !== undefined) this.#kept[tier] = null
  }

  note(event: KvEvent, nowMs: number): void {
    if (event.kind === 'clear') {
      this.clear()
      return
    }
    if (event.tier === null || this.#limits[event.tier] === undefined) return
    if (event.kind === 'remove') {
      this.#kept[event.tier] = null
      return
    }
    if (this.#kept[event.tier] === null) return
    const kept = (this.#kept[event.tier] ??= new Map<string, Kept>())
    const group = event.kind === 'hold' ? 0 : event.group
    const hashes = event.kind === 'hold' ? event.keys : event.engineHashes
    for (let at = 0; at + 1 < hashes.length; at += 2) {
      const low = hashes[at] as number
      const high = hashes[at + 1] as number
      const name = `${group}:${high}:${low}`
      kept.delete(name)
      kept.set(name, { low, high, group, atMs: nowMs })
    }
  }

  /** Removals of what is too old or too much by now; it is forgotten here. */
  due(nowMs: number, blockSize: number): KvRemove[] {
    const removals: KvRemove[] = []
    for (const [tier, kept] of this.#kept.entries()) {
      const limit = this.#limits[tier]
      if (kept === null || kept === undefined || limit === undefined) continue
      const most = Math.min(mostRecords, Math.floor(limit.tokens / blockSize))
      for (const [name, { low, high, group, atMs }] of kept) {
        const isOld = limit.afterMs > 0 && nowMs - atMs >= limit.afterMs
        if (!isOld && kept.size <= most) break
        kept.delete(name)
        removals.push({ kind: 'remove', tier, group, engineHashes: Uint32Array.of(low, high) })
      }
    }
    return removals
  }

  /** What the source held is gone; whether it tells of removals has to be seen again. */
  clear(): void {
    this.#kept.length = 0
  }
}
