import type { Tier } from '../kv/tier.ts'
import type { BlockStored, KvEvent } from './kv-event.ts'
import { MsgpackWriter } from './msgpack.ts'

export interface EventEncoding {
  /** `int`: unsigned 64-bit; `bytes`: 32 bytes, of which the last 8 are the integer form, big-endian. */
  readonly hashes: 'int' | 'bytes'
  /** The data-parallel rank that the batch names. */
  readonly rank: number
  /** Stores outside the GPU name their blocks by hash alone, as vLLM's offloading does unless it is told to describe them. */
  readonly placeholders?: boolean
  /** What the shared store is called. */
  readonly sharedMedium?: string
}

/**
 * One batch as vLLM 0.32 publishes it: `[timestamp in seconds, [event…], rank]`, each event a map with its `type` and its
 * fields in the order of vLLM's declaration; fields at their default are left out.
 */
export function encodeBatch(events: readonly KvEvent[], timestampSeconds: number, encoding: EventEncoding): Buffer {
  const out = new MsgpackWriter()
  out.array(3)
  out.float(timestampSeconds)
  const told = encoding.placeholders === true ? events.flatMap(withoutTokens) : events
  out.array(told.length)
  for (const event of told) writeEvent(out, event, encoding)
  out.unsigned(encoding.rank)
  return out.take()
}

/** One placeholder for each block that is stored outside the GPU. */
function withoutTokens(event: KvEvent): readonly KvEvent[] {
  if (event.kind !== 'stored' || event.tier === 'gpu') return [event]
  const blocks = Array.from({ length: event.hashes.length / 2 }, (_, i) => event.hashes.slice(2 * i, 2 * i + 2))
  return blocks.map((hashes): BlockStored => ({
    ...event,
    hashes,
    parent: null,
    tokens: new Uint32Array(0),
    blockSize: 0,
  }))
}

function writeEvent(out: MsgpackWriter, event: KvEvent, encoding: EventEncoding): void {
  const { hashes } = encoding
  const hash = (low: number, high: number): void => {
    if (hashes === 'int') out.unsigned64(low, high)
    else out.bytes(digestOf(low, high))
  }
  switch (event.kind) {
    case 'cleared':
      out.map(1)
      out.field('type', 'AllBlocksCleared')
      return
    case 'removed':
      out.map(4)
      out.field('type', 'BlockRemoved')
      out.text('block_hashes')
      out.array(1)
      hash(event.low, event.high)
      out.field('medium', mediumOf(event.tier, encoding))
      out.field('group_idx', 0)
      return
    case 'stored': {
      const blocks = event.hashes.length / 2
      out.map(event.sessionId === null ? 11 : 12)
      out.field('type', 'BlockStored')
      out.text('block_hashes')
      out.array(blocks)
      for (let i = 0; i < event.hashes.length; i += 2) hash(event.hashes[i] as number, event.hashes[i + 1] as number)
      out.text('parent_block_hash')
      if (event.parent === null) out.nil()
      else hash(event.parent[0], event.parent[1])
      out.text('token_ids')
      out.array(event.tokens.length)
      for (const token of event.tokens) out.unsigned(token)
      out.field('block_size', event.blockSize)
      out.field('lora_id', event.loraId)
      out.field('medium', mediumOf(event.tier, encoding))
      out.field('lora_name', event.loraName)
      out.text('extra_keys')
      out.array(blocks)
      for (let block = 0; block < blocks; block++) writeExtraKeys(out, event, event.fromStart && block === 0)
      out.field('group_idx', 0)
      out.field('kv_cache_spec_kind', 'full_attention')
      if (event.sessionId !== null) out.field('session_id', event.sessionId)
      return
    }
    default:
      event satisfies never
  }
}

function mediumOf(tier: Tier, { sharedMedium = 'EXTERNAL' }: EventEncoding): string {
  switch (tier) {
    case 'gpu':
      return 'GPU'
    case 'host':
      return 'CPU'
    case 'disk':
      return 'STORAGE'
    case 'shared':
      return sharedMedium
    default:
      return tier satisfies never
  }
}

/** The adapter's name on every block, the salt on the first of a chain. */
function writeExtraKeys(
  out: MsgpackWriter,
  { loraName, cacheSalt }: { readonly loraName: string | null; readonly cacheSalt: string | null },
  first: boolean,
): void {
  const keys = [loraName, first ? cacheSalt : null].filter((key) => key !== null)
  if (keys.length === 0) {
    out.nil()
    return
  }
  out.array(keys.length)
  for (const key of keys) out.text(key)
}

/** 32 bytes that end in the integer form; the bytes before it stand for the part of a digest that nobody reads. */
function digestOf(low: number, high: number): Buffer {
  const digest = Buffer.alloc(32)
  for (let at = 0; at < 24; at += 4) digest.writeUInt32BE((Math.imul(low ^ at, 0x9e3779b1) ^ high) >>> 0, at)
  digest.writeUInt32BE(high, 24)
  digest.writeUInt32BE(low, 28)
  return digest
}
