/** What a worker's events have shown of its engine's ways, as plain data. */
export interface LearnedOfEngine {
  /** Tokens in a block; null: unknown. */
  readonly blockSize: number | null
  /** Cache groups whose blocks hold prefixes, and those that are left out. */
  readonly groups: readonly number[]
  readonly otherGroups: readonly number[]
  /** The group whose blocks on the GPU have the worker's block size. */
  readonly sizingGroup: number | null
  /** Tokens in a chunk of a store beside the engine; null: there is none. */
  readonly chunkTokens: number | null
  readonly sharedTokens: number | null
  /** Tiers in which the engine itself, or the store beside it, has stored something. */
  readonly engineTiers: readonly number[]
  readonly chunkTiers: readonly number[]
}

/** The same from JSON; null where it is not that. */
export function readLearned(value: unknown): LearnedOfEngine | null {
  if (typeof value !== 'object' || value === null) return null
  const fields = value as Readonly<Record<string, unknown>>
  const counts = ['blockSize', 'sizingGroup', 'chunkTokens', 'sharedTokens'].map((name) => fields[name])
  const lists = ['groups', 'otherGroups', 'engineTiers', 'chunkTiers'].map((name) => fields[name])
  if (!counts.every((count) => count === null || isCount(count))) return null
  if (!lists.every((list) => Array.isArray(list) && list.every(isCount))) return null
  return value as LearnedOfEngine
}

function isCount(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0
}
