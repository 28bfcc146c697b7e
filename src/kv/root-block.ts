/**
 * The first block of a chain as an engine announced it. What it is checked by is gone when the call that got it returns:
 * token ids are not kept (decision 2).
 */
export interface RootBlock {
  readonly tokens: Uint32Array
  /** The engine's own name for it. */
  readonly hashLow: number
  readonly hashHigh: number
  /** LoRA adapter by name. */
  readonly adapter: string | null
  /** What sets it apart besides tokens and adapter, as in block keys: `salt:<salt>`, `mm:<id>@<offset>`, `embeds:<hex>`. */
  readonly extras: readonly string[]
  /** Its `local` hash without extras: two announcements of the same tokens have the same. */
  readonly plainLow: number
  readonly plainHigh: number
}
