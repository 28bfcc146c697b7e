import type { Encodable } from './msgpack.ts'

/** One object as Mooncake's master tells of it (source of 2026-08): most fields are nil. */
export const objectEvent = (type: 'stored' | 'removed', hash: bigint | null, key: string): Encodable => ({
  event_id: 7,
  timestamp: 1_766_000_000_123,
  event_type: type,
  type: type === 'stored' ? 'BlockStored' : 'BlockRemoved',
  tenant_id: 'default',
  backend_id: 'node-1',
  group_id: null,
  medium: 'cpu',
  object_key: key,
  seq_hashes: hash === null ? [] : [hash],
  block_hashes: hash === null ? [] : [BigInt.asIntN(64, hash)],
  model_name: null,
  block_size: null,
  lora_name: null,
  dp_rank: null,
  token_ids: null,
  parent_hash: null,
})
