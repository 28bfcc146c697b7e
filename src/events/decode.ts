import { RouterError } from '../errors.ts'
import { MsgpackCursor } from './msgpack.ts'

/** One message of an engine's event stream, in the engine's own terms. */
export interface DecodedBatch {
  /** Seconds since 1970 by the engine's clock. */
  readonly timestamp: number
  /** Data-parallel rank, where the engine tells it. */
  readonly rank: number | null
  readonly events: readonly DecodedEvent[]
  /** How often parts of the message were passed over, and why. */
  readonly skipped: Readonly<Skipped>
}

export interface Skipped {
  unknown_kind: number
  unknown_field: number
  event_malformed: number
}

export type DecodedEvent = DecodedStore | DecodedRemove | { readonly kind: 'clear' }

export interface DecodedStore {
  readonly kind: 'store'
  /** Engine hashes in chain order, two words each, low word first. */
  readonly hashes: Uint32Array
  /** Two words, or null at the start of a chain. */
  readonly parent: Uint32Array | null
  /** Token ids of all blocks in a row; empty where the engine announces presence by hash alone. */
  readonly tokens: Uint32Array
  /** In place of tokens: what `localHashes` of kv/keys.ts makes of them and of what else sets a block apart. */
  readonly locals?: Uint32Array
  /** Each token was told together with the next one (EAGLE on SGLang); `tokens` has the first of each pair. */
  readonly pairs: boolean
  readonly blockSize: number
  /** Counts adapters within one engine process: tells that there is one, not which. */
  readonly loraId: number | null
  readonly loraName: string | null
  readonly medium: string | null
  readonly cacheSalt: string | null
  /** Per block, what else its hash covers. */
  readonly extraKeys: readonly (readonly ExtraKey[] | null)[] | null
  readonly group: number | null
  readonly specKind: string | null
  readonly slidingWindow: number | null
  readonly locality: string | null
  readonly ownership: string | null
  readonly sessionId: string | null
}

export interface DecodedRemove {
  readonly kind: 'remove'
  readonly hashes: Uint32Array
  readonly medium: string | null
  /** Removed from every place, whatever the medium says. */
  readonly everywhere?: true
  readonly group: number | null
  readonly locality: string | null
  readonly ownership: string | null
}

export type ExtraKey =
  /** A bare text: the adapter's name or the cache salt; only the event as a whole tells which. */
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'media'; readonly id: string; readonly offset: number }
  /** A digest of prompt embeddings. */
  | { readonly kind: 'embeds'; readonly hex: string }
  /** A form that is not known here, as its MessagePack bytes: it still sets the block apart. */
  | { readonly kind: 'other'; readonly hex: string }

/** A batch with more events than this is no engine's. */
export const maxEvents = 100_000
/** After so many events with wrong types the whole payload is taken for foreign. */
const maxMalformedEvents = 100

/**
 * Decodes `[timestamp, [event …], rank?]` as vLLM (0.32, and before with arrays) and SGLang (0.5.23 and before) publish
 * it. Each event is a map with the key `type` or an array with its tag at position 0; both may be mixed. What is not
 * known is passed over and noted, an event with a wrong type in it alone is passed over; only a payload that cannot be
 * walked at all is a RouterError EVENT_MALFORMED.
 */
export function decodeBatch(payload: Buffer): DecodedBatch {
  const cursor = new MsgpackCursor(payload)
  const items = cursor.array()
  if (items < 2)
    throw new RouterError('EVENT_MALFORMED', `A batch has ${items} items; a timestamp and events are needed.`)
  const timestamp = cursor.number()
  const count = cursor.array()
  if (count > maxEvents) throw new RouterError('EVENT_MALFORMED', `A batch has more than ${maxEvents} events.`)
  const events: DecodedEvent[] = []
  const skipped: Skipped = { unknown_kind: 0, unknown_field: 0, event_malformed: 0 }
  for (let i = 0; i < count; i++) {
    const start = cursor.at
    try {
      const event = decodeEvent(cursor, skipped)
      if (event !== null) events.push(event)
    } catch (cause) {
      if (!(cause instanceof RouterError) || skipped.event_malformed >= maxMalformedEvents) throw cause
      // The event alone is at fault if it can be walked over; else this throws once more, for the whole payload.
      cursor.at = start
      cursor.skip()
      skipped.event_malformed++
    }
  }
  const rank = items > 2 && !cursor.skipNil() ? cursor.integer() : null
  skipped.unknown_field += Math.max(0, items - 3)
  return { timestamp, rank, events, skipped }
}

/** The timestamp alone, for deciding whether two batches are the same one; NaN where there is none. */
export function readTimestamp(payload: Buffer): number {
  try {
    const cursor = new MsgpackCursor(payload)
    return cursor.array() > 0 ? cursor.number() : NaN
  } catch {
    return NaN
  }
}

/** Fields by their position in an array event; position 0 is the tag. */
const storePositions = [
  'type',
  'block_hashes',
  'parent_block_hash',
  'token_ids',
  'block_size',
  'lora_id',
  'medium',
  'lora_name',
  'extra_keys',
  'group_idx',
  'kv_cache_spec_kind',
  'kv_cache_spec_sliding_window',
] as const
const removePositions = ['type', 'block_hashes', 'medium', 'group_idx'] as const
const clearPositions = ['type'] as const

type Field = (typeof storePositions)[number] | 'cache_salt' | 'locality' | 'ownership' | 'session_id'

const kinds = { BlockStored: 'store', BlockRemoved: 'remove', AllBlocksCleared: 'clear' } as const

/** Texts that occur in almost every event: recognised by their bytes, so that no string is made for them. */
const wordsByLength: { readonly bytes: Uint8Array; readonly word: string }[][] = []
for (const word of [
  ...storePositions,
  ...['cache_salt', 'locality', 'ownership', 'session_id'],
  ...Object.keys(kinds),
  ...['GPU', 'CPU', 'CPU_PINNED', 'full_attention'],
]) {
  ;(wordsByLength[word.length] ??= []).push({ bytes: Buffer.from(word, 'latin1'), word })
}

interface Draft {
  type: string | null
  block_hashes: Uint32Array | null
  parent_block_hash: Uint32Array | null
  token_ids: Uint32Array | null
  block_size: number | null
  lora_id: number | null
  medium: string | null
  lora_name: string | null
  cache_salt: string | null
  extra_keys: readonly (readonly ExtraKey[] | null)[] | null
  group_idx: number | null
  kv_cache_spec_kind: string | null
  kv_cache_spec_sliding_window: number | null
  locality: string | null
  ownership: string | null
  session_id: string | null
}

/** Null where the kind is not known. */
function decodeEvent(cursor: MsgpackCursor, skipped: Skipped): DecodedEvent | null {
  const draft: Draft = {
    type: null,
    block_hashes: null,
    parent_block_hash: null,
    token_ids: null,
    block_size: null,
    lora_id: null,
    medium: null,
    lora_name: null,
    cache_salt: null,
    extra_keys: null,
    group_idx: null,
    kv_cache_spec_kind: null,
    kv_cache_spec_sliding_window: null,
    locality: null,
    ownership: null,
    session_id: null,
  }
  cursor.hadPairs = false
  const known = cursor.isArray() ? readArray(cursor, draft, skipped) : readMap(cursor, draft, skipped)
  if (!known || draft.type === null || !isKind(draft.type)) {
    skipped.unknown_kind++
    return null
  }
  return finish(draft, kinds[draft.type], cursor.hadPairs)
}

/** False where the kind is not known; the cursor stands behind the event all the same. */
function readArray(cursor: MsgpackCursor, draft: Draft, skipped: Skipped): boolean {
  const count = cursor.array()
  if (count === 0) return false
  draft.type = text(cursor)
  const positions =
    draft.type === 'BlockStored' ? storePositions : draft.type === 'BlockRemoved' ? removePositions : clearPositions
  const known = isKind(draft.type)
  for (let i = 1; i < count; i++) {
    const field = positions[i]
    if (known && field !== undefined) readField(cursor, draft, field)
    else {
      cursor.skip()
      if (known) skipped.unknown_field++
    }
  }
  return known
}

function readMap(cursor: MsgpackCursor, draft: Draft, skipped: Skipped): boolean {
  const start = cursor.at
  const count = cursor.map()
  const unknownBefore = skipped.unknown_field
  for (let i = 0; i < count; i++) {
    const field = cursor.isText() ? text(cursor) : null
    if (field === null) cursor.skip()
    if (field !== null && isField(field, draft)) readField(cursor, draft, field)
    else {
      cursor.skip()
      skipped.unknown_field++
    }
    if (field === 'type' && !isKind(draft.type ?? '')) {
      skipped.unknown_field = unknownBefore
      cursor.at = start
      cursor.skip()
      return false
    }
  }
  return true
}

function readField(cursor: MsgpackCursor, draft: Draft, field: Field): void {
  if (cursor.skipNil()) return
  switch (field) {
    case 'block_hashes':
      draft.block_hashes = hashes(cursor)
      return
    case 'parent_block_hash':
      draft.parent_block_hash = new Uint32Array(2)
      cursor.hash(draft.parent_block_hash, 0)
      return
    case 'token_ids':
      draft.token_ids = cursor.tokens()
      return
    case 'extra_keys':
      draft.extra_keys = extraKeys(cursor)
      return
    case 'block_size':
    case 'lora_id':
    case 'group_idx':
    case 'kv_cache_spec_sliding_window':
      draft[field] = cursor.integer()
      return
    case 'type':
    case 'medium':
    case 'lora_name':
    case 'cache_salt':
    case 'kv_cache_spec_kind':
    case 'locality':
    case 'ownership':
    case 'session_id':
      draft[field] = text(cursor)
      return
    default:
      field satisfies never
  }
}

function finish(draft: Draft, kind: 'store' | 'remove' | 'clear', pairs: boolean): DecodedEvent {
  if (kind === 'clear') return { kind }
  if (draft.block_hashes === null) throw new RouterError('EVENT_MALFORMED', 'An event names no block hashes.')
  const { medium, locality, ownership } = draft
  const shared = { hashes: draft.block_hashes, medium, group: draft.group_idx, locality, ownership }
  if (kind === 'remove') return { kind, ...shared }
  if (draft.block_size === null || draft.block_size < 0) {
    throw new RouterError('EVENT_MALFORMED', 'A stored event has no block size.')
  }
  return {
    kind,
    ...shared,
    parent: draft.parent_block_hash,
    tokens: draft.token_ids ?? new Uint32Array(0),
    pairs,
    blockSize: draft.block_size,
    loraId: draft.lora_id,
    loraName: draft.lora_name,
    cacheSalt: draft.cache_salt,
    extraKeys: draft.extra_keys,
    specKind: draft.kv_cache_spec_kind,
    slidingWindow: draft.kv_cache_spec_sliding_window,
    sessionId: draft.session_id,
  }
}

function isKind(type: string): type is keyof typeof kinds {
  return Object.hasOwn(kinds, type)
}

function isField(name: string, draft: Draft): name is Field {
  return Object.hasOwn(draft, name)
}

function hashes(cursor: MsgpackCursor): Uint32Array {
  const count = cursor.array()
  const words = new Uint32Array(2 * count)
  for (let i = 0; i < count; i++) cursor.hash(words, 2 * i)
  return words
}

function extraKeys(cursor: MsgpackCursor): readonly (readonly ExtraKey[] | null)[] | null {
  const blocks = cursor.array()
  const keys: (readonly ExtraKey[] | null)[] = []
  let some = false
  for (let block = 0; block < blocks; block++) {
    if (cursor.skipNil()) {
      keys.push(null)
      continue
    }
    const count = cursor.array()
    some ||= count > 0
    keys.push(Array.from({ length: count }, () => extraKey(cursor)))
  }
  return some ? keys : null
}

function extraKey(cursor: MsgpackCursor): ExtraKey {
  const start = cursor.at
  if (cursor.isText()) return { kind: 'text', text: text(cursor) }
  if (cursor.isBinary()) {
    const length = cursor.binaryBytes()
    cursor.at += length
    return { kind: 'embeds', hex: cursor.bytes.toString('hex', cursor.at - length, cursor.at) }
  }
  if (cursor.isArray() && cursor.array() === 2 && cursor.isText()) {
    const id = text(cursor)
    const byte = cursor.peek()
    if (byte <= 0x7f || (byte >= 0xcc && byte <= 0xd3) || byte >= 0xe0)
      return { kind: 'media', id, offset: cursor.integer() }
  }
  cursor.at = start
  cursor.skip()
  return { kind: 'other', hex: cursor.bytes.toString('hex', start, cursor.at) }
}

function text(cursor: MsgpackCursor): string {
  const length = cursor.textBytes()
  const { bytes, at } = cursor
  cursor.at = at + length
  next: for (const { bytes: known, word } of wordsByLength[length] ?? []) {
    for (let i = 0; i < length; i++) if (known[i] !== bytes[at + i]) continue next
    return word
  }
  return bytes.toString('utf8', at, at + length)
}
