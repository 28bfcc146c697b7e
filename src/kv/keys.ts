/**
 * Block keys: our own 64-bit names for a block together with everything before it (decision 1).
 *
 *     local_i = hash(seed, tokens of block i, extras of block i)      reveals no tokens without the secret
 *     key_i   = mix(key_{i-1}, local_i),   key_{-1} = root            names the whole prefix
 *
 * Blocks are hashed on their own and chained afterwards, so that the hashes of neighbouring blocks overlap in the
 * processor. A 64-bit value is two 32-bit words, low word first: a bigint per block costs about seven times more.
 */
import xxhash from 'xxhash-wasm'

/** Raised whenever the same tokens would get other keys, so that replicas and snapshots of two versions never mix. */
export const keyFormatVersion = 1

/** What every key of one (pool, block size, adapter) begins with. */
export interface KeyScope {
  readonly rootLow: number
  readonly rootHigh: number
  readonly seedLow: number
  readonly seedHigh: number
  /** Tokens in a block. */
  readonly blockSize: number
}

/** Per block: strings that belong to it besides its tokens (`salt:<salt>` on block 0, `mm:<id>@<offset>` …), or null. */
export type BlockExtras = readonly (readonly string[] | null)[]

export interface KeyMaker {
  /** The scope of a canonical pool name, a block size in tokens and an adapter; the caller keeps it. */
  scope(options: { readonly model: string; readonly blockSize: number; readonly adapter: string | null }): KeyScope
  /** 16 hexadecimal digits that stand for a client's text of some kind; equal on every replica, and nothing without the secret. */
  nameOf(kind: string, text: string): string
}

/** A maker of scopes under a deployment's secret; equal secrets make equal keys on every replica. */
export async function createKeyMaker(secret: Uint8Array): Promise<KeyMaker> {
  const hasher = await xxhash()
  const hash = (fields: readonly (string | number | null | Uint8Array)[]): readonly [number, number] => {
    const value = hasher.h64Raw(delimited(fields))
    return [Number(value & 0xffffffffn) | 0, Number(value >> 32n) | 0]
  }
  const [seedLow, seedHigh] = hash(['local', keyFormatVersion, secret])
  return {
    scope({ model, blockSize, adapter }) {
      const [rootLow, rootHigh] = hash(['root', keyFormatVersion, model, blockSize, adapter, secret])
      return { rootLow, rootHigh, seedLow, seedHigh, blockSize }
    },
    nameOf(kind, text) {
      const [low, high] = hash(['name', kind, text, secret])
      return (high >>> 0).toString(16).padStart(8, '0') + (low >>> 0).toString(16).padStart(8, '0')
    },
  }
}

/**
 * The keys of a prompt's full blocks, two words a block, in one call a prompt.
 *
 * @param known Keys of leading blocks from an earlier turn whose tokens and extras were the same: they are copied, and
 *   only the blocks after them are hashed. Keys beyond the prompt's own full blocks are left out.
 */
export function blockKeys(
  tokens: Uint32Array,
  scope: KeyScope,
  extras?: BlockExtras,
  known?: Uint32Array,
): Uint32Array {
  const words = 2 * Math.floor(tokens.length / scope.blockSize)
  const keys = new Uint32Array(words)
  const knownWords = known === undefined ? 0 : Math.min(known.length & ~1, words)
  if (known !== undefined) keys.set(known.subarray(0, knownWords))
  hashBlocks(tokens, scope, extras, knownWords >>> 1, keys)
  const fresh = knownWords === 0 ? keys : keys.subarray(knownWords)
  const parentLow = knownWords === 0 ? scope.rootLow : (keys[knownWords - 2] as number)
  const parentHigh = knownWords === 0 ? scope.rootHigh : (keys[knownWords - 1] as number)
  chainKeys(parentLow, parentHigh, fresh, fresh)
  return keys
}

/** The `local` hashes of a prompt's full blocks, two words a block: what events carry in place of tokens (decision 2). */
export function localHashes(tokens: Uint32Array, scope: KeyScope, extras?: BlockExtras): Uint32Array {
  const locals = new Uint32Array(2 * Math.floor(tokens.length / scope.blockSize))
  hashBlocks(tokens, scope, extras, 0, locals)
  return locals
}

/**
 * Chains `locals` (two words a block) under a parent key into `out`, which may be `locals` itself. Each step is
 * invertible in the parent for a fixed local hash and the other way round, so that it adds no collisions of its own.
 */
export function chainKeys(parentLow: number, parentHigh: number, locals: Uint32Array, out: Uint32Array): void {
  let low = parentLow | 0
  let high = parentHigh | 0
  for (let at = 0; at + 1 < locals.length; at += 2) {
    const localLow = locals[at] as number
    const localHigh = locals[at + 1] as number
    let a = Math.imul(((low << 7) | (low >>> 25)) + localLow, 0x9e3779b1)
    let b = Math.imul(((high << 13) | (high >>> 19)) ^ localHigh, 0x85ebca6b)
    a ^= a >>> 15
    b = (b + a) | 0
    b = Math.imul(b ^ (b >>> 13), 0xc2b2ae35)
    a = Math.imul(a + ((b << 16) | (b >>> 16)), 0x27d4eb2f)
    a ^= a >>> 14
    b = Math.imul(b + a, 0x165667b1)
    b ^= b >>> 16
    a = (a + b) | 0
    // Key 0 marks an unused place in tables, so it is never the name of a block.
    low = (a | b) === 0 ? 1 : a
    high = b
    out[at] = low
    out[at + 1] = high
  }
}

/**
 * How many blocks two rows of keys have in common from a place in each on. A key names all blocks before its own, so that
 * rows which part never meet again: one comparison tells most apart, and a binary search finds the place in the others.
 */
export function sharedBlocks(one: Uint32Array, oneFrom: number, other: Uint32Array, otherFrom: number): number {
  const isShared = (block: number): boolean => {
    const at = 2 * (oneFrom + block)
    const otherAt = 2 * (otherFrom + block)
    return one[at] === other[otherAt] && one[at + 1] === other[otherAt + 1]
  }
  let end = Math.min((one.length >>> 1) - oneFrom, (other.length >>> 1) - otherFrom)
  if (end <= 0 || !isShared(0)) return 0
  // Block `last` is shared, and those from `end` on are not or are not there.
  let last = 0
  while (end - last > 1) {
    const middle = (last + end) >>> 1
    if (isShared(middle)) last = middle
    else end = middle
  }
  return last + 1
}

/** Writes the local hashes of the blocks from `firstBlock` on into `out`, at two words a block. */
function hashBlocks(
  tokens: Uint32Array,
  scope: KeyScope,
  extras: BlockExtras | undefined,
  firstBlock: number,
  out: Uint32Array,
): void {
  const { seedLow, seedHigh, blockSize } = scope
  const blocks = Math.floor(tokens.length / blockSize)
  for (let block = firstBlock; block < blocks; block++) {
    let a = seedLow
    let b = seedHigh
    // Two lanes feed each other, two tokens a turn (a Feistel ladder), so each output word depends on every input bit.
    let at = block * blockSize
    const end = at + blockSize
    for (; at + 1 < end; at += 2) {
      const even = tokens[at] as number
      const odd = tokens[at + 1] as number
      a = (a + Math.imul(even, 0x85ebca77)) | 0
      a = Math.imul((a << 13) | (a >>> 19), 0x9e3779b1)
      b = b ^ even
      b = (Math.imul((b << 17) | (b >>> 15), 0xc2b2ae3d) + a) | 0
      b = (b + Math.imul(odd, 0x27d4eb2f)) | 0
      b = Math.imul((b << 13) | (b >>> 19), 0x165667b1)
      a = a ^ odd
      a = (Math.imul((a << 17) | (a >>> 15), 0x9e3779b1) + b) | 0
    }
    if (at < end) {
      const last = tokens[at] as number
      a = Math.imul(a + Math.imul(last, 0x85ebca77), 0x9e3779b1)
      b = (Math.imul(b ^ last, 0xc2b2ae3d) + a) | 0
    }
    const strings = extras?.[block]
    if (strings !== undefined && strings !== null && strings.length > 0) {
      const mixed = mixStrings(strings, a, b)
      a = mixed[0]
      b = mixed[1]
    }
    a = Math.imul(a ^ (a >>> 16) ^ b, 0x85ebca6b)
    b = Math.imul(b ^ (b >>> 15) ^ a, 0xc2b2ae35)
    a = Math.imul(a ^ (a >>> 13) ^ (b >>> 16), 0x9e3779b1)
    b = Math.imul(b ^ (b >>> 14) ^ a, 0x27d4eb2f)
    out[block * 2] = a ^ (a >>> 16) ^ b
    out[block * 2 + 1] = b ^ (b >>> 15)
  }
}

/** Folds strings, each after its length, into the two lanes; only blocks with media or a salt come here. */
function mixStrings(strings: readonly string[], low: number, high: number): readonly [number, number] {
  let a = low
  let b = high
  const fold = (word: number): void => {
    a = (a + Math.imul(word, 0x85ebca77)) | 0
    a = Math.imul((a << 13) | (a >>> 19), 0x9e3779b1)
    b = (Math.imul(((b ^ word) << 17) | ((b ^ word) >>> 15), 0xc2b2ae3d) + a) | 0
    a = (a ^ Math.imul(b, 0x165667b1)) | 0
  }
  fold(strings.length)
  for (const text of strings) {
    fold(text.length)
    for (let i = 0; i < text.length; i++) fold(text.charCodeAt(i) + 1)
  }
  return [a, b]
}

/** Fields, each behind its kind and length, so that no two lists of fields make the same bytes. */
function delimited(fields: readonly (string | number | null | Uint8Array)[]): Uint8Array {
  const parts: Uint8Array[] = []
  for (const field of fields) {
    const bytes = field instanceof Uint8Array ? field : Buffer.from(field === null ? '' : String(field))
    const head = Buffer.alloc(5)
    head.writeUInt8(field === null ? 0 : typeof field === 'string' ? 1 : typeof field === 'number' ? 2 : 3, 0)
    head.writeUInt32LE(bytes.length, 1)
    parts.push(head, bytes)
  }
  return Buffer.concat(parts)
}
