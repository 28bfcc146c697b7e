import { RouterError } from '../errors.ts'
import type { DecodedBatch, DecodedEvent } from './decode.ts'
import { MsgpackCursor } from './msgpack.ts'

/** A batch with more events than this is no store's. */
const maxEvents = 100_000

interface Draft {
  kind: 'store' | 'remove' | 'clear' | null
  hashes: Uint32Array | null
  parent: Uint32Array | null
  tokens: Uint32Array | null
  blockSize: number
  loraName: string | null
  salt: string | null
}

const kinds: ReadonlyMap<string, 'store' | 'remove' | 'clear'> = new Map([
  ['stored', 'store'],
  ['removed', 'remove'],
  ['cleared', 'clear'],
  ['BlockStored', 'store'],
  ['BlockRemoved', 'remove'],
  ['AllBlocksCleared', 'clear'],
] as const)

/**
 * Decodes `[timestamp in milliseconds, [event …], rank]` as Mooncake's master and its conductor publish it (source of
 * 2026-08, RFC 1527): one map for each object, with `seq_hashes` only where the object's key is a number, and with
 * `token_ids`, `block_size` and `parent_hash` only from publishers that know them. What names no block is passed over and
 * counted as malformed. Every object is in the pool that all workers reach, whatever its medium.
 */
export function decodeMooncake(payload: Buffer): DecodedBatch {
  const cursor = new MsgpackCursor(payload)
  const items = cursor.array()
  if (items < 2)
    throw new RouterError('EVENT_MALFORMED', `A batch has ${items} items; a timestamp and events are needed.`)
  const timestamp = cursor.number() / 1000
  const count = cursor.array()
  if (count > maxEvents) throw new RouterError('EVENT_MALFORMED', `A batch has more than ${maxEvents} events.`)
  const events: DecodedEvent[] = []
  const skipped = { unknown_kind: 0, unknown_field: 0, event_malformed: 0 }
  for (let i = 0; i < count; i++) {
    const draft = readEvent(cursor)
    const event = draft.kind === null ? null : finish(draft, draft.kind)
    if (event !== null) events.push(event)
    else if (draft.kind === null) skipped.unknown_kind++
    else skipped.event_malformed++
  }
  return { timestamp, rank: null, events, skipped }
}

function readEvent(cursor: MsgpackCursor): Draft {
  const draft: Draft = {
    kind: null,
    hashes: null,
    parent: null,
    tokens: null,
    blockSize: 0,
    loraName: null,
    salt: null,
  }
  const fields = cursor.map()
  for (let i = 0; i < fields; i++) {
    const field = cursor.isText() ? text(cursor) : ''
    if (field === '') cursor.skip()
    if (cursor.skipNil()) continue
    switch (field) {
      case 'event_type':
      case 'type':
        draft.kind = kinds.get(text(cursor)) ?? draft.kind
        break
      case 'seq_hashes':
        draft.hashes = hashes(cursor)
        break
      case 'block_hashes': {
        // The same as `seq_hashes`, for readers that know vLLM's events only.
        const read = hashes(cursor)
        draft.hashes ??= read
        break
      }
      case 'parent_hash':
        draft.parent = new Uint32Array(2)
        cursor.hash(draft.parent, 0)
        break
      case 'token_ids':
        draft.tokens = cursor.tokens()
        break
      case 'block_size':
        draft.blockSize = cursor.integer()
        break
      case 'lora_name':
        draft.loraName = text(cursor)
        break
      case 'additional_salt':
        draft.salt = text(cursor)
        break
      default:
        cursor.skip()
    }
  }
  return draft
}

/** Null where it names no block. */
function finish(draft: Draft, kind: 'store' | 'remove' | 'clear'): DecodedEvent | null {
  if (kind === 'clear') return { kind }
  const { hashes: named, parent, tokens, blockSize, loraName, salt } = draft
  if (named === null || named.length === 0) return null
  const common = { hashes: named, medium: 'shared', group: null, locality: null, ownership: null }
  if (kind === 'remove') return { kind, ...common }
  return {
    kind,
    ...common,
    parent,
    tokens: tokens ?? new Uint32Array(0),
    pairs: false,
    blockSize,
    loraId: null,
    loraName: loraName === '' ? null : loraName,
    cacheSalt: salt === '' ? null : salt,
    extraKeys: null,
    specKind: null,
    slidingWindow: null,
    sessionId: null,
  }
}

function hashes(cursor: MsgpackCursor): Uint32Array {
  const count = cursor.array()
  const words = new Uint32Array(2 * count)
  for (let i = 0; i < count; i++) cursor.hash(words, 2 * i)
  return words
}

function text(cursor: MsgpackCursor): string {
  const length = cursor.textBytes()
  cursor.at += length
  return cursor.bytes.toString('utf8', cursor.at - length, cursor.at)
}
