import { RouterError } from '../../errors.ts'
import type { EventPosition } from '../../kv/batch.ts'
import type { Log } from '../../telemetry/log.ts'
import type { EventCounters } from '../counters.ts'
import type { DecodedEvent } from '../decode.ts'
import { Sequence, type Arrival } from '../sequence.ts'
import type { EventSource } from '../source.ts'
import { readEntry, type EntryEvents, type StreamEntry } from '../stream/entry.ts'
import { decodeJsonEvents } from '../stream/json-events.ts'
import type { StreamReader, StreamReading } from '../stream/reader.ts'
import { createUpsets } from '../upsets.ts'
import type { PayloadIngest } from './zmq.ts'

/** Where batches go, decoded or not. */
export interface EntryIngest extends PayloadIngest {
  applyEvents(sequence: number, timestamp: number, events: readonly DecodedEvent[]): void
}

export interface RedisSourceOptions {
  readonly reader: StreamReader
  readonly stream: string
  /** Entries older than the newest by more than this are removed from the stream; null: none are. */
  readonly retainMs: number | null
  readonly counters: EventCounters
  readonly log: Log
  /** The worker's name in log lines. */
  readonly name: string
  readonly onRestart: () => void
}

/**
 * KV events that a bridge writes to a Redis stream (docs/event-stream.md). The stream is its own replay: reading begins
 * with its oldest entry and goes on where it stopped, so that what is missing there is missing for good and clears.
 *
 *     seeking ── the last batch applied is found, or is not and all is read anew ──► reading ◄──┐
 *        ▲                                                                            │         │ the engine speaks
 *     start(from)                                                     the worker is down        │ again: read anew
 *                                                                                     └─► silent ┘
 */
export function createRedisSource(options: RedisSourceOptions, ingest: EntryIngest): EventSource {
  const { counters, log, name, reader, stream, retainMs } = options
  let reading: StreamReading | null = null
  let isConnected = false
  let isCaughtUp = false
  /** The batch which the stream has to hold for what somebody else has applied to be believed. */
  let sought: EventPosition | null = null
  /** The worker was down, and nothing has come since: the process may be another one. */
  let isSilent = false
  let hasWarned = false
  const upsets = createUpsets(options, ingest)

  const sequence = new Sequence<EntryEvents>(
    { replay: false, maxBufferedBatches: 0, maxBufferedBytes: 0 },
    {
      apply: (arrival) => applyEntry(arrival, ingest, counters),
      requestReplay: () => undefined,
      cancelReplay: () => undefined,
      ...upsets.outputs,
    },
  )

  const readAnew = (): void => {
    isCaughtUp = false
    reading?.rewind()
  }

  const forget = (): void => {
    sought = null
    sequence.disconnected()
    sequence.connected()
  }

  const skip = (reason: string): void => {
    counters.skipped(reason, 1)
    if (hasWarned) return
    hasWarned = true
    log.warn(
      { worker: name, stream, reason },
      'KV events: an entry of the stream was skipped; further ones are counted',
    )
  }

  const take = (entry: StreamEntry): void => {
    const read = readEntry(entry)
    if (read.kind === 'skipped') skip(read.reason)
    else if (sought !== null) {
      if (read.kind !== 'batch' || !isAt(read.arrival, sought)) return
      sought = null
      sequence.connected(true)
    } else if (read.kind === 'reset') forget()
    else sequence.live(read.arrival)
  }

  return {
    start(from) {
      if (reading !== null) return
      if (from === undefined) ingest.clear('start')
      sought = from?.position ?? null
      sequence.resume(sought, from?.partial ?? false)
      if (sought === null) sequence.connected()
      reading = reader.follow(
        stream,
        { retainMs },
        {
          connected() {
            isConnected = true
            isCaughtUp = false
          },
          disconnected() {
            isConnected = false
            counters.disconnect()
          },
          entries(entries) {
            isCaughtUp = false
            if (isSilent) {
              isSilent = false
              readAnew()
            } else for (const entry of entries) take(entry)
          },
          caughtUp() {
            isCaughtUp = true
            if (sought === null) return
            forget()
            readAnew()
          },
        },
      )
    },
    stop() {
      reading?.stop()
      reading = null
      isConnected = false
      return Promise.resolve()
    },
    status: () => ({
      state:
        reading === null ? 'absent' : !isConnected || isSilent ? 'unknown' : isCaughtUp ? sequence.state : 'replaying',
      lastSequence: sequence.lastApplied,
      ...upsets.counted,
      partial: sequence.partial,
      epoch: ingest.epoch,
    }),
    workerDown() {
      forget()
      isSilent = true
    },
  }
}

function isAt({ sequence, timestamp }: Arrival<EntryEvents>, position: EventPosition): boolean {
  return sequence === position.sequence && Object.is(timestamp, position.timestamp)
}

function applyEntry(
  { sequence, timestamp, batch: { form, bytes } }: Arrival<EntryEvents>,
  ingest: EntryIngest,
  counters: EventCounters,
): void {
  if (form === 'payload') ingest.apply(sequence, timestamp, bytes)
  else ingest.applyEvents(sequence, timestamp, jsonEvents(bytes, counters))
}

/** What cannot be decoded is passed over and counted, as it is where engines publish it. */
function jsonEvents(bytes: Buffer, counters: EventCounters): readonly DecodedEvent[] {
  try {
    const { events, skipped } = decodeJsonEvents(bytes)
    for (const [reason, count] of Object.entries(skipped)) if (count > 0) counters.skipped(reason, count)
    return events
  } catch (error) {
    if (!(error instanceof RouterError)) throw error
    counters.skipped('batch_malformed', 1)
    return []
  }
}
