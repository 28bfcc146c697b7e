/**
 * Entries of an intake stream: KV events that a bridge writes to a Redis stream (docs/event-stream.md is the format's
 * specification, of which this file reads version 1).
 */
import { readTimestamp } from '../decode.ts'
import type { Arrival } from '../sequence.ts'

/** An entry as Redis keeps it. */
export interface StreamEntry {
  /** `<milliseconds>-<number>`; grows along the stream. */
  readonly id: string
  /** Names and values by turns. */
  readonly fields: readonly Buffer[]
}

/** The events of an entry, not decoded yet. */
export interface EntryEvents {
  /** `payload`: as the engine published them; `json`: in the form of the specification. */
  readonly form: 'payload' | 'json'
  readonly bytes: Buffer
}

export type ReadEntry =
  | { readonly kind: 'batch'; readonly arrival: Arrival<EntryEvents> }
  /** The writer does not vouch any more for what it wrote before. */
  | { readonly kind: 'reset' }
  | { readonly kind: 'skipped'; readonly reason: 'entry_version' | 'entry_malformed' | 'entry_too_large' }

const version = '1'
/** Larger ones are no engine's; reading one would hold up everything else. */
const maxEventsBytes = 16 * 1024 * 1024
const decimal = /^\d{1,16}$/

export function readEntry({ id, fields }: StreamEntry): ReadEntry {
  const field = (name: string): Buffer | undefined => valueOf(fields, name)
  const text = (name: string): string | undefined => field(name)?.toString('latin1')
  if (text('v') !== version)
    return { kind: 'skipped', reason: text('v') === undefined ? 'entry_malformed' : 'entry_version' }
  if (field('reset') !== undefined) return { kind: 'reset' }
  const number = text('seq') ?? ''
  const sequence = decimal.test(number) ? Number(number) : NaN
  const payload = field('payload')
  const json = field('events')
  const bytes = payload ?? json
  if (bytes !== undefined && bytes.length > maxEventsBytes) return { kind: 'skipped', reason: 'entry_too_large' }
  const timestamp = payload === undefined ? ownTime(text('ts'), id) : readTimestamp(payload)
  if (!Number.isSafeInteger(sequence) || bytes === undefined || timestamp === null || (payload && json))
    return { kind: 'skipped', reason: 'entry_malformed' }
  const batch: EntryEvents = { form: payload === undefined ? 'json' : 'payload', bytes }
  return { kind: 'batch', arrival: { sequence, timestamp, bytes: bytes.length, batch } }
}

/** Of a name that stands there twice the first one counts. */
function valueOf(fields: readonly Buffer[], name: string): Buffer | undefined {
  for (let at = 0; at + 1 < fields.length; at += 2) {
    const own = fields[at]
    if (own?.length === name.length && own.toString('latin1') === name) return fields[at + 1]
  }
  return undefined
}

/**
 * Seconds; null where what is written is no time. Without one the entry's own time tells it from others of its number, so
 * that two writings of one batch are taken for those of two processes: forgotten too much, never believed too much.
 */
function ownTime(text: string | undefined, id: string): number | null {
  if (text === undefined) return Number.parseInt(id, 10) / 1000
  const seconds = text.trim() === '' ? NaN : Number(text)
  return Number.isFinite(seconds) ? seconds : null
}
