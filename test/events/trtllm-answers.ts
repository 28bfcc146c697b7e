import { readFileSync } from 'node:fs'

/** The bytes of an answer of `/kv_cache_events`, cut out of a fixture that tells more about it. */
export function recordedAnswer(name: string): { readonly bytes: Buffer } {
  const text = readFileSync(new URL(`../fixtures/trtllm/${name}.json`, import.meta.url), 'utf8')
  const start = text.indexOf('"response": ') + '"response": '.length
  return { bytes: Buffer.from(text.slice(start, text.lastIndexOf('}'))) }
}

/** An event in TensorRT-LLM's form, hashes with all their digits. */
export function eventJson(
  id: number,
  data: object,
  more: { readonly window?: number | null; readonly rank?: number; readonly group?: number } = {},
): string {
  const { window = 1024, rank, group } = more
  return json({
    event_id: id,
    data,
    ...(window === null ? {} : { window_size: window }),
    ...(rank === undefined ? {} : { attention_dp_rank: rank }),
    ...(group === undefined ? {} : { layer_group_id: group }),
  })
}

export const created = (...blocks: number[]) => ({ type: 'created', num_blocks_per_cache_level: blocks })

export const stored = (
  parent: bigint | null,
  ...blocks: { hash: bigint; tokens: readonly number[]; level?: number; extra?: number }[]
) => ({
  type: 'stored',
  parent_hash: parent,
  blocks: blocks.map(({ hash, tokens, level = 0, extra = 0 }) => ({
    type: 'stored_block',
    block_hash: hash,
    tokens: tokens.map((token) => ({ type: 'unique_token', token_id: token, token_extra_id: extra })),
    cache_level: level,
    priority: 35,
  })),
})

export const removed = (...hashes: bigint[]) => ({ type: 'removed', block_hashes: hashes })

export const moved = (hash: bigint, from: number, to: number) => ({
  type: 'updated',
  block_hash: hash,
  cache_level: { type: 'event_diff', new_value: to, old_value: from },
  priority: null,
})

/** JSON with bigints as plain numbers. */
function json(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) => (typeof inner === 'bigint' ? `big:${inner}` : inner)).replace(
    /"big:(\d+)"/g,
    '$1',
  )
}
