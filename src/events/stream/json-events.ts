import { RouterError } from '../../errors.ts'
import { maxEvents, type DecodedEvent, type DecodedStore, type Skipped } from '../decode.ts'

/** The `events` of an entry, in the same terms as those that engines publish. */
export interface JsonEvents {
  readonly events: readonly DecodedEvent[]
  readonly skipped: Readonly<Skipped>
}

/**
 * Decodes the JSON form of docs/event-stream.md. An event of an unknown kind, or with a wrong type in it, is passed over
 * and counted; only what is no list at all is a RouterError EVENT_MALFORMED.
 */
export function decodeJsonEvents(bytes: Buffer): JsonEvents {
  const given = parsed(bytes)
  if (!Array.isArray(given)) throw malformed('The events are no list.')
  if (given.length > maxEvents) throw malformed(`An entry has more than ${maxEvents} events.`)
  const skipped: Skipped = { unknown_kind: 0, unknown_field: 0, event_malformed: 0 }
  const events: DecodedEvent[] = []
  for (const event of given as readonly unknown[]) {
    try {
      const decoded = decodeEvent(event, skipped)
      if (decoded !== null) events.push(decoded)
    } catch (error) {
      if (!(error instanceof RouterError)) throw error
      skipped.event_malformed++
    }
  }
  return { events, skipped }
}

const known = {
  stored: new Set([
    ...['type', 'hashes', 'parent', 'tokens', 'locals', 'block_size', 'medium', 'lora_name', 'salt', 'group'],
  ]),
  removed: new Set(['type', 'hashes', 'medium', 'group']),
  cleared: new Set(['type']),
} as const

/** Null where the kind is not known. */
function decodeEvent(given: unknown, skipped: Skipped): DecodedEvent | null {
  if (typeof given !== 'object' || given === null) throw malformed('An event is no object.')
  const event = new Fields(given as Record<string, unknown>)
  const type = event.text('type')
  if (type !== 'stored' && type !== 'removed' && type !== 'cleared') {
    skipped.unknown_kind++
    return null
  }
  const decoded = type === 'stored' ? stored(event) : type === 'removed' ? removed(event) : ({ kind: 'clear' } as const)
  for (const name of event.names) if (!known[type].has(name)) skipped.unknown_field++
  return decoded
}

function stored(event: Fields): DecodedStore {
  const locals = event.words('locals')
  const tokens = event.tokens('tokens')
  const described = locals !== null || tokens !== null
  if (locals !== null && tokens !== null) throw malformed('An event has both tokens and local hashes.')
  const blockSize = event.integer('block_size', 65_536)
  if (described && blockSize === null) throw malformed('A stored event has no block size.')
  return {
    kind: 'store',
    ...places(event),
    parent: event.word('parent'),
    tokens: tokens ?? new Uint32Array(0),
    ...(locals === null ? {} : { locals }),
    pairs: false,
    blockSize: blockSize ?? 0,
    loraId: null,
    loraName: event.text('lora_name'),
    cacheSalt: event.text('salt'),
    extraKeys: null,
    specKind: null,
    slidingWindow: null,
    sessionId: null,
  }
}

function removed(event: Fields): DecodedEvent {
  return { kind: 'remove', ...places(event) }
}

function places(event: Fields) {
  const hashes = event.words('hashes')
  if (hashes === null) throw malformed('An event names no blocks.')
  const group = event.integer('group', 0xffff)
  return { hashes, medium: event.text('medium'), group, locality: null, ownership: null }
}

/** The fields of one event, each read with the type that it must have; one that is absent or null is null. */
class Fields {
  readonly #given: Readonly<Record<string, unknown>>

  constructor(given: Readonly<Record<string, unknown>>) {
    this.#given = given
  }

  get names(): readonly string[] {
    return Object.keys(this.#given)
  }

  text(name: string): string | null {
    const value = this.#given[name] ?? null
    if (value !== null && typeof value !== 'string') throw malformed(`"${name}" is no text.`)
    return value
  }

  integer(name: string, most: number): number | null {
    const value = this.#given[name] ?? null
    if (value !== null && !isInteger(value, most)) throw malformed(`"${name}" is no number up to ${most}.`)
    return value
  }

  tokens(name: string): Uint32Array | null {
    const list = this.#list(name)
    if (list === null) return null
    for (const token of list) if (!isInteger(token, 0xffff_ffff)) throw malformed(`"${name}" holds no token ids.`)
    return Uint32Array.from(list as readonly number[])
  }

  /** A 64-bit value, as two words. */
  word(name: string): Uint32Array | null {
    const value = this.#given[name] ?? null
    if (value === null) return null
    const words = new Uint32Array(2)
    setWord(words, 0, value)
    return words
  }

  /** 64-bit values, two words each, low word first. */
  words(name: string): Uint32Array | null {
    const list = this.#list(name)
    if (list === null) return null
    const words = new Uint32Array(2 * list.length)
    for (const [index, value] of list.entries()) setWord(words, 2 * index, value)
    return words
  }

  #list(name: string): readonly unknown[] | null {
    const value = this.#given[name] ?? null
    if (value !== null && !Array.isArray(value)) throw malformed(`"${name}" is no list.`)
    return value as readonly unknown[] | null
  }
}

const hexForm = /^0x[0-9a-f]{1,128}$/i
const decimalForm = /^-?\d{1,20}$/

/** Of longer names, such as whole SHA-256 sums, the last 8 bytes count, as they do where engines publish them. */
function setWord(words: Uint32Array, at: number, given: unknown): void {
  const text = typeof given === 'number' && Number.isSafeInteger(given) ? String(given) : given
  if (typeof text !== 'string') throw malformed('A 64-bit value is no text.')
  const isHex = hexForm.test(text)
  const value = isHex ? BigInt(`0x${text.slice(2).slice(-16)}`) : decimalForm.test(text) ? BigInt(text) : null
  // Some engines write their hashes as signed numbers.
  if (value === null || value >= 2n ** 64n || value < -(2n ** 63n)) throw malformed('A text is no 64-bit value.')
  words[at] = Number(BigInt.asUintN(32, value))
  words[at + 1] = Number(BigInt.asUintN(32, value >> 32n))
}

function isInteger(value: unknown, most: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most
}

function parsed(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8')) as unknown
  } catch {
    throw malformed('The events are not JSON.')
  }
}

function malformed(message: string): RouterError {
  return new RouterError('EVENT_MALFORMED', message)
}
