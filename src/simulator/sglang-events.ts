import type { Tier } from '../kv/tier.ts'
import type { BlockRemoved, BlockStored, KvEvent } from './kv-event.ts'
import { MsgpackWriter } from './msgpack.ts'

/**
 * One batch as SGLang 0.5.23 publishes it: `[timestamp in seconds, [event…], rank]`, each event a map with its `type`, ids as
 * signed numbers, and optional fields left out where there is nothing to say. Removals in a row that name one medium are one
 * event.
 */
export function encodeSglangBatch(events: readonly KvEvent[], timestampSeconds: number, rank: number): Buffer {
  const out = new MsgpackWriter()
  const told = grouped(events)
  out.array(3)
  out.float(timestampSeconds)
  out.array(told.length)
  for (const event of told) write(out, event)
  out.unsigned(rank)
  return out.take()
}

type Told =
  BlockStored | { readonly kind: 'cleared' } | { readonly kind: 'removed'; readonly all: readonly BlockRemoved[] }

function grouped(events: readonly KvEvent[]): readonly Told[] {
  const told: Told[] = []
  let run: BlockRemoved[] = []
  for (const event of events) {
    if (event.kind !== 'removed') told.push(event)
    else if (run[0]?.tier === event.tier && told.at(-1)?.kind === 'removed') run.push(event)
    else {
      run = [event]
      told.push({ kind: 'removed', all: run })
    }
  }
  return told
}

function write(out: MsgpackWriter, event: Told): void {
  switch (event.kind) {
    case 'cleared':
      out.map(1)
      out.field('type', 'AllBlocksCleared')
      return
    case 'removed':
      out.map(3)
      out.field('type', 'BlockRemoved')
      out.text('block_hashes')
      out.array(event.all.length)
      for (const { low, high } of event.all) out.signed64(low, high)
      out.field('medium', mediumOf((event.all[0] as BlockRemoved).tier))
      return
    case 'stored': {
      const { cacheSalt, loraName, sessionId, hashes, parent, tokens } = event
      const more = { cache_salt: cacheSalt, session_id: sessionId, lora_name: loraName }
      const present = Object.entries(more).filter(([, value]) => value !== null)
      out.map(7 + present.length)
      out.field('type', 'BlockStored')
      out.text('block_hashes')
      out.array(hashes.length / 2)
      for (let i = 0; i < hashes.length; i += 2) out.signed64(hashes[i] as number, hashes[i + 1] as number)
      out.text('parent_block_hash')
      if (parent === null) out.nil()
      else out.signed64(parent[0], parent[1])
      out.text('token_ids')
      out.array(tokens.length)
      for (const token of tokens) out.unsigned(token)
      out.field('block_size', event.blockSize)
      out.field('lora_id', null)
      out.field('medium', mediumOf(event.tier))
      for (const [name, value] of present) out.field(name, value)
      return
    }
    default:
      event satisfies never
  }
}

function mediumOf(tier: Tier): string {
  switch (tier) {
    case 'gpu':
      return 'GPU'
    case 'host':
      return 'CPU_PINNED'
    case 'disk':
      return 'DISK'
    case 'shared':
      return 'EXTERNAL'
    default:
      return tier satisfies never
  }
}
