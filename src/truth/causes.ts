/** What most likely makes predictions fail. Stable names: they stand in /admin/workers, metrics, logs and docs/truth.md. */
export type Cause =
  | 'block_size'
  | 'template'
  | 'tokenizer'
  | 'lora'
  | 'salt'
  | 'hash_seed'
  | 'events_off'
  | 'events_silent'
  | 'events_unreachable'
  | 'events_unusable'
  | 'finds_less'
  | 'finds_more'
  | 'details_off'

/** What each cause means and what to do about it, in one sentence. */
export const causeTexts: Readonly<Record<Cause, string>> = {
  block_size: 'the engine’s blocks have another size than is configured or announced: leave out "blockSize"',
  template:
    'the engine’s prompts of chats differ from ours: check its chat template and the pool’s tokenizer directory',
  tokenizer: 'the engine’s tokens of a prompt differ from ours: check the pool’s tokenizer directory',
  lora: 'blocks of adapters are told under another name, or none: check the adapter’s name on the engine',
  salt: 'the engine ignores the cache salt, or its events do not tell it: tenants are not kept apart there',
  hash_seed: 'the engine names its blocks by another hash seed or algorithm: check PYTHONHASHSEED and "nativeHash"',
  events_off: 'the engine publishes no KV events: it is routed by what was sent to it; turn its KV events on',
  events_silent:
    'KV events are configured but none come while it stores new blocks: check the event endpoint and topic',
  events_unreachable: 'its KV events cannot be subscribed to: check the event endpoint, and that its events are on',
  events_unusable: 'its KV events come but cannot be used: see kv_events_skipped_total for the reason',
  finds_less: 'the engine finds less cached than its events tell: check LoRA and salt settings, and lost events',
  finds_more:
    'the engine finds more cached than its events tell: check block size, tokenizer, chat template and KV events',
  details_off:
    'the engine does not report cached tokens: start vLLM with --enable-prompt-tokens-details, SGLang with --enable-cache-report',
}

/** Causes that cost some of the check or some credit, but make no prediction wrong. */
const mild: ReadonlySet<Cause> = new Set(['details_off', 'events_off', 'events_unreachable', 'hash_seed'])

export function isMild(cause: Cause): boolean {
  return mild.has(cause)
}
