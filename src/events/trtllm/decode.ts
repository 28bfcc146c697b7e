import { RouterError } from '../../errors.ts'
import { JsonCursor } from './json-cursor.ts'

/** One KV-cache event of TensorRT-LLM, in its own terms. */
export interface TrtllmEvent {
  /** Counts the events of one rank, from 0 in every process. */
  readonly id: number
  /** Attention data-parallel rank; 0 where the engine has one only. */
  readonly rank: number
  /** Tokens of the attention window whose pool the event is about; null from versions with one pool only. */
  readonly windowSize: number | null
  /** Which of the layer groups of one window; 0 where there is one. */
  readonly group: number
  readonly data: TrtllmData
}

export type TrtllmData =
  | { readonly kind: 'created'; readonly blocksPerLevel: readonly number[] }
  | TrtllmStored
  | { readonly kind: 'removed'; readonly hashes: Uint32Array }
  | TrtllmUpdated
  | { readonly kind: 'unknown' }

export interface TrtllmStored {
  readonly kind: 'stored'
  /** Two words, low word first; null at the start of a chain. */
  readonly parent: Uint32Array | null
  /** In chain order; at least one. */
  readonly blocks: readonly TrtllmBlock[]
  readonly loraName: string | null
  readonly cacheSalt: string | null
}

export interface TrtllmBlock {
  readonly low: number
  readonly high: number
  readonly tokens: Uint32Array
  /** 0 GPU, 1 host, 2 disk. */
  readonly level: number
  /** Whether its tokens alone say what it holds: not so with media or prompt-tuning tables. */
  readonly plain: boolean
}

export interface TrtllmUpdated {
  readonly kind: 'updated'
  readonly low: number
  readonly high: number
  /** Null where something else about the block has changed. */
  readonly level: { readonly from: number; readonly to: number } | null
}

export interface TrtllmAnswer {
  /** In the order of the answer. */
  readonly events: readonly TrtllmEvent[]
  /** Events that could be walked over, but not read. */
  readonly malformed: number
}

/** Bytes that are read in one turn of the event loop: about two milliseconds. */
const turnBytes = 512 * 1024

/**
 * Reads the JSON list that `/kv_cache_events` answers (TensorRT-LLM, `KVCacheEventSerializer`). Fields may come in any
 * order; unknown ones are passed over. An event with a wrong type in it is left out alone. A text that is not a JSON list
 * to its end is a RouterError EVENT_MALFORMED.
 *
 * @param turn Awaited now and then, so that a long answer leaves others their turn.
 */
export async function decodeEvents(bytes: Uint8Array, turn: () => Promise<void>): Promise<TrtllmAnswer> {
  const cursor = new JsonCursor(bytes)
  const events: TrtllmEvent[] = []
  let malformed = 0
  if (cursor.skipNull()) return { events, malformed }
  cursor.array()
  let turnEndsAt = turnBytes
  while (cursor.item()) {
    const start = cursor.at
    try {
      events.push(decodeEvent(cursor))
    } catch (cause) {
      if (!(cause instanceof RouterError)) throw cause
      // The event alone is at fault if it can be walked over; else this throws once more, for the whole text.
      cursor.resume(start)
      cursor.skip()
      malformed++
    }
    if (cursor.at >= turnEndsAt) {
      turnEndsAt = cursor.at + turnBytes
      await turn()
    }
  }
  cursor.end()
  return { events, malformed }
}

function decodeEvent(cursor: JsonCursor): TrtllmEvent {
  let id = -1
  let rank = 0
  let windowSize: number | null = null
  let group = 0
  let data: TrtllmData | null = null
  cursor.object()
  while (cursor.key()) {
    if (cursor.skipNull()) continue
    switch (cursor.name) {
      case 'event_id':
        id = cursor.integer()
        break
      case 'attention_dp_rank':
        rank = cursor.integer()
        break
      case 'window_size':
        windowSize = cursor.integer()
        break
      case 'layer_group_id':
        group = cursor.integer()
        break
      case 'data':
        data = decodeData(cursor)
        break
      default:
        cursor.skip()
    }
  }
  if (id < 0 || rank < 0 || group < 0 || data === null) return malformed('An event lacks its id or its data.')
  return { id, rank, windowSize, group, data }
}

interface Draft {
  type: string
  hash: Uint32Array | null
  hashes: Uint32Array | null
  parent: Uint32Array | null
  blocks: TrtllmBlock[] | null
  blocksPerLevel: number[] | null
  level: { from: number; to: number } | null
  loraName: string | null
  cacheSalt: string | null
}

function decodeData(cursor: JsonCursor): TrtllmData {
  const draft: Draft = {
    type: '',
    hash: null,
    hashes: null,
    parent: null,
    blocks: null,
    blocksPerLevel: null,
    level: null,
    loraName: null,
    cacheSalt: null,
  }
  cursor.object()
  while (cursor.key()) if (!cursor.skipNull()) readDataField(cursor, draft)
  switch (draft.type) {
    case 'created':
      return { kind: 'created', blocksPerLevel: draft.blocksPerLevel ?? [] }
    case 'stored': {
      const { parent, blocks, loraName, cacheSalt } = draft
      if (blocks === null || blocks.length === 0) return malformed('A stored event has no blocks.')
      return { kind: 'stored', parent, blocks, loraName, cacheSalt }
    }
    case 'removed':
      return { kind: 'removed', hashes: draft.hashes ?? malformed('A removed event names no hashes.') }
    case 'updated': {
      const [low = 0, high = 0] = draft.hash ?? malformed('An updated event names no hash.')
      return { kind: 'updated', low, high, level: draft.level }
    }
    default:
      return { kind: 'unknown' }
  }
}

function readDataField(cursor: JsonCursor, draft: Draft): void {
  switch (cursor.name) {
    case 'type':
      draft.type = cursor.string()
      return
    case 'num_blocks_per_cache_level':
      draft.blocksPerLevel = []
      cursor.array()
      while (cursor.item()) draft.blocksPerLevel.push(cursor.integer())
      return
    case 'parent_hash':
      draft.parent = hashOf(cursor)
      return
    case 'block_hash':
      draft.hash = hashOf(cursor)
      return
    case 'block_hashes':
      draft.hashes = hashesOf(cursor)
      return
    case 'cache_level':
      draft.level = levelChange(cursor)
      return
    case 'blocks':
      draft.blocks = []
      cursor.array()
      while (cursor.item()) draft.blocks.push(decodeBlock(cursor, draft))
      return
    case 'lora_name':
      draft.loraName = cursor.string()
      return
    case 'cache_salt':
      draft.cacheSalt = cursor.string()
      return
    default:
      cursor.skip()
  }
}

/** Tokens of the block that is read; it grows and is used again. */
let scratch = new Uint32Array(64)

function decodeBlock(cursor: JsonCursor, draft: Draft): TrtllmBlock {
  let hash: Uint32Array | null = null
  let count = 0
  let level = 0
  let plain = true
  cursor.object()
  while (cursor.key()) {
    if (cursor.skipNull()) continue
    switch (cursor.name) {
      case 'block_hash':
        hash = hashOf(cursor)
        break
      case 'tokens':
        cursor.array()
        for (count = 0; cursor.item(); count++) {
          if (count === scratch.length) {
            const grown = new Uint32Array(2 * count)
            grown.set(scratch)
            scratch = grown
          }
          const token = decodeToken(cursor)
          plain &&= token >= 0
          scratch[count] = Math.max(token, 0)
        }
        break
      case 'cache_level':
        level = cursor.integer()
        break
      case 'mm_keys':
        cursor.array()
        while (cursor.item()) {
          plain = false
          cursor.skip()
        }
        break
      case 'cache_salt':
        // Newer versions write it on the blocks in place of the event.
        draft.cacheSalt = cursor.string()
        break
      default:
        cursor.skip()
    }
  }
  if (hash === null) return malformed('A stored block has no hash.')
  const [low = 0, high = 0] = hash
  return { low, high, tokens: scratch.slice(0, count), level, plain }
}

/** The token's id; −1 where it stands for something else than a text token. */
function decodeToken(cursor: JsonCursor): number {
  let id = -1
  let isText = true
  cursor.object()
  while (cursor.key()) {
    switch (cursor.name) {
      case 'token_id':
        // Newer versions write the digest of a medium here, as a text.
        if (cursor.isString()) {
          isText = false
          cursor.skip()
        } else id = cursor.integer()
        break
      case 'token_extra_id':
        if (cursor.skipNull()) break
        // Digests of media fill all 64 bits.
        cursor.hash()
        if (cursor.low !== 0 || cursor.high !== 0) isText = false
        break
      default:
        cursor.skip()
    }
  }
  if (!isText) return -1
  return id >= 0 && id <= 0xffff_ffff ? id : malformed('A token has no id.')
}

/** `{old_value, new_value}` of an updated event. */
function levelChange(cursor: JsonCursor): { from: number; to: number } {
  let from = -1
  let to = -1
  cursor.object()
  while (cursor.key()) {
    if (cursor.name === 'old_value') from = cursor.integer()
    else if (cursor.name === 'new_value') to = cursor.integer()
    else cursor.skip()
  }
  return from >= 0 && to >= 0 ? { from, to } : malformed('A change of level lacks a value.')
}

function hashOf(cursor: JsonCursor): Uint32Array {
  cursor.hash()
  return Uint32Array.of(cursor.low, cursor.high)
}

function hashesOf(cursor: JsonCursor): Uint32Array {
  const words: number[] = []
  cursor.array()
  while (cursor.item()) {
    cursor.hash()
    words.push(cursor.low, cursor.high)
  }
  return Uint32Array.from(words)
}

function malformed(message: string): never {
  throw new RouterError('EVENT_MALFORMED', message)
}
