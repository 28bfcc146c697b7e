import type { Log } from '../../telemetry/log.ts'
import type { Cancel, Clock } from '../../zmtp/clock.ts'
import type { ZmtpLimits } from '../../zmtp/limits.ts'
import type { EventCounters } from '../counters.ts'
import { readTimestamp } from '../decode.ts'
import type { ForgetReason } from '../ingest.ts'
import { Replay, ReplayGate, replayLimits, type ReplayLimits } from '../replay.ts'
import { readSequence } from '../sequence-number.ts'
import { Sequence, type Arrival } from '../sequence.ts'
import type { EventSource } from '../source.ts'
import { dialPublisher, type PublisherHandlers, type PublisherListener, type Subscription } from '../subscription.ts'
import { createUpsets } from '../upsets.ts'

/** Where decoded batches go. */
export interface PayloadIngest {
  readonly epoch: number
  apply(sequence: number, timestamp: number, payload: Buffer): void
  /** What was known is not believed any more. */
  clear(reason: ForgetReason): void
}

export interface ZmqSourceOptions {
  readonly counters: EventCounters
  /** Where the engine publishes, `tcp://host:port`; null where it dials in at `listener`. */
  readonly endpoint: string | null
  readonly listener?: { readonly at: PublisherListener; readonly address: string | null }
  readonly replayEndpoint: string | null
  /** Prefix of the topic when dialling, the exact topic when listening; empty: any. */
  readonly topic: string
  readonly clock: Clock
  readonly random: () => number
  readonly log: Log
  /** The worker's name in log lines. */
  readonly name: string
  readonly onRestart: () => void
  /** Shared by all sources of the process. */
  readonly replayGate?: ReplayGate
  readonly limits?: Partial<ZmqEventsLimits>
  readonly zmtpLimits?: Partial<ZmtpLimits>
}

export interface ZmqEventsLimits extends ReplayLimits {
  /** After a failed replay, before the next. */
  readonly restMs: number
  /** A lost subscription that is not found again within this time is no longer believed. */
  readonly distrustAfterMs: number
  /** Live batches held back during a replay. */
  readonly maxBufferedBatches: number
  readonly maxBufferedBytes: number
}

export const zmqEventsLimits: ZmqEventsLimits = {
  ...replayLimits,
  restMs: 30_000,
  distrustAfterMs: 10_000,
  maxBufferedBatches: 65_536,
  maxBufferedBytes: 64 * 1024 * 1024,
}

/** The KV events that a publisher numbers as engines do, over ZeroMQ: subscription, replay and sequence joined. */
export function createZmqSource(options: ZmqSourceOptions, ingest: PayloadIngest): EventSource {
  const { clock, counters, log, name, random, replayEndpoint, topic } = options
  const limits = { ...zmqEventsLimits, ...options.limits }
  const upsets = createUpsets(options, ingest)
  let subscription: Subscription | null = null
  let cancelRest: Cancel = () => undefined
  let cancelDistrust: Cancel = () => undefined

  const sequence = new Sequence<Buffer>(
    {
      replay: replayEndpoint !== null,
      maxBufferedBatches: limits.maxBufferedBatches,
      maxBufferedBytes: limits.maxBufferedBytes,
    },
    {
      apply: ({ sequence: number, timestamp, batch }) => ingest.apply(number, timestamp, batch),
      requestReplay: (from) => replay?.start(from),
      cancelReplay: () => replay?.cancel(),
      ...upsets.outputs,
    },
  )

  const replay =
    replayEndpoint === null
      ? null
      : new Replay({
          endpoint: replayEndpoint,
          clock,
          random,
          gate: options.replayGate ?? new ReplayGate(),
          limits,
          onBatch: (number, payload) => sequence.replayBatch(arrival(number, payload)),
          onEnd: () => sequence.replayEnd(),
          onFailed: (reason) => {
            log.warn({ worker: name, reason }, 'KV events: replay failed')
            sequence.replayFailed()
            cancelRest()
            cancelRest = clock.after(limits.restMs, () => sequence.restOver())
          },
        })

  const handlers: PublisherHandlers = {
    connected() {
      cancelDistrust()
      log.info({ worker: name }, 'KV events: subscribed')
      sequence.connected()
    },
    disconnected() {
      counters.disconnect()
      log.warn({ worker: name }, 'KV events: subscription lost')
      sequence.disconnected()
      cancelDistrust()
      cancelDistrust = clock.after(limits.distrustAfterMs, () => sequence.distrust())
    },
    message(frames) {
      const payload = frames.at(-1)
      const number = frames.length > 1 ? readSequence(frames.at(-2) as Buffer) : null
      if (payload === undefined || number === null) counters.skipped('frames_malformed', 1)
      else sequence.live(arrival(number, payload))
    },
    skipped: (reason) => counters.skipped(reason, 1),
  }

  return {
    start(from) {
      if (subscription !== null) return
      if (from === undefined) ingest.clear('start')
      sequence.resume(from?.position ?? null, from?.partial ?? false)
      subscription =
        options.endpoint !== null
          ? dialPublisher(
              options.endpoint,
              topic,
              {
                clock,
                random,
                ...(options.zmtpLimits && { limits: options.zmtpLimits }),
                onFault: (fault, remote) =>
                  log.debug(
                    { worker: name, remote, code: fault.code, fault: fault.message },
                    'KV events: connection fault',
                  ),
              },
              handlers,
            )
          : (options.listener?.at.attach({ topic, address: options.listener.address }, handlers) ?? null)
    },
    async stop() {
      const ended = subscription
      subscription = null
      replay?.cancel()
      cancelRest()
      cancelDistrust()
      await ended?.close()
    },
    status: () => ({
      state: subscription === null ? 'absent' : sequence.state,
      lastSequence: sequence.lastApplied,
      ...upsets.counted,
      partial: sequence.partial,
      epoch: ingest.epoch,
    }),
    workerDown: () => sequence.distrust(),
  }
}

/** The payload is a view of what was received, which is never written to again: it may wait without a copy. */
function arrival(sequence: number, payload: Buffer): Arrival<Buffer> {
  return { sequence, timestamp: readTimestamp(payload), bytes: payload.length, batch: payload }
}
