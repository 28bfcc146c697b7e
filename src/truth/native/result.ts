import type { Cause } from '../causes.ts'

/** What is known of how an engine names its blocks; null where nobody says. */
export interface NativeHash {
  readonly algorithm: string | null
  readonly seed: string | null
  /** Where each adapter was loaded from, by its name. */
  readonly adapterPaths: ReadonlyMap<string, string>
}

export type NativeResult =
  /** The engine's own name was recomputed from what it announced, as it was said to be made. */
  | { readonly kind: 'verified'; readonly algorithm: string; readonly seed: string | null }
  /** It was not, but another way of making it gives exactly that name, or it was claimed to be known. */
  | { readonly kind: 'mismatch'; readonly cause: Cause; readonly found: string }
  /** Nothing that can be tried gives it: a random seed, an algorithm that is not known. No reproach. */
  | { readonly kind: 'unverified'; readonly reason: string }

export function mismatch(cause: Cause, found: string): NativeResult {
  return { kind: 'mismatch', cause, found }
}

export const saltUnused = 'the salt is announced but not part of the name: tenants share what is cached'

/** Least block size that is tried in place of the announced one, and the step to the next. */
const sizeStep = 8

/** The beginnings of a block that an engine with smaller blocks than it announces may have named. */
export function* smallerBlocks(tokens: Uint32Array): Generator<Uint32Array> {
  for (let size = sizeStep; size < tokens.length; size += sizeStep) yield tokens.subarray(0, size)
}

export function otherSize(real: Uint32Array, announced: Uint32Array): NativeResult {
  return mismatch('block_size', `the engine names blocks of ${real.length} tokens and announces ${announced.length}`)
}
