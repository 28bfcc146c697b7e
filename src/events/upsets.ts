import type { Log } from '../telemetry/log.ts'
import type { EventCounters } from './counters.ts'
import type { ForgetReason } from './ingest.ts'
import type { SequenceOutputs } from './sequence.ts'

export interface UpsetsOptions {
  readonly counters: EventCounters
  readonly log: Log
  /** The worker's name in log lines. */
  readonly name: string
  readonly onRestart: () => void
}

type Upset = 'clear' | 'dropped' | 'gap' | 'restart'

/** What is done about batches of one worker that are missing, too many, or another process's: counted, logged, told. */
export function createUpsets(
  { counters, log, name, onRestart }: UpsetsOptions,
  ingest: { readonly epoch: number; clear(reason: ForgetReason): void },
) {
  /** Since the source was made. */
  const counted = { gaps: 0, restarts: 0 }
  const outputs: Pick<SequenceOutputs<never>, Upset> = {
    clear: (reason) => {
      ingest.clear(reason)
      log.info({ worker: name, reason, epoch: ingest.epoch }, 'KV events: cleared')
    },
    dropped: (reason) => counters.skipped(reason, 1),
    gap: () => {
      counted.gaps++
      counters.gap()
    },
    restart: () => {
      counted.restarts++
      counters.restart()
      log.warn({ worker: name }, 'KV events: the engine was restarted')
      onRestart()
    },
  }
  return { counted, outputs }
}
