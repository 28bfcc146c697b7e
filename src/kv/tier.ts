/**
 * Where a KV block is. `gpu`, `host` and `disk` are on the worker's own node; `shared` is a store that every worker
 * reaches. Others call this medium, level, G1–G4 or L1–L3 (docs/glossary.md).
 */
export const tiers = ['gpu', 'host', 'disk', 'shared'] as const
export type Tier = (typeof tiers)[number]

/** A tier as a number, the form in which the map and the batch records hold it. */
export const tierIndex = { gpu: 0, host: 1, disk: 2, shared: 3 } as const satisfies Record<Tier, number>
export type TierIndex = (typeof tierIndex)[Tier]

/** Blocks of one slot in all tiers together, where each tier has an array by slot. */
export function blocksOf({ gpu, host, disk, shared }: Readonly<Record<Tier, Uint32Array>>, slot: number): number {
  return (gpu[slot] as number) + (host[slot] as number) + (disk[slot] as number) + (shared[slot] as number)
}
