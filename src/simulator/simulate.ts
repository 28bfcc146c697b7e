import { systemClock, type Clock } from '../zmtp/clock.ts'
import type { EngineOptions } from './engine-options.ts'
import { vllm } from './flavours/vllm.ts'
import { outputVocabulary, type SimulatorTokenizer } from './tokenizer.ts'
import { SimulatedWorker, type WorkerOptions } from './worker.ts'

export interface SimulatorsOptions {
  readonly workers: number
  readonly tokenizer: SimulatorTokenizer
  readonly model: string
  readonly host?: string
  /** Ports of the first worker; worker i adds i, or i × ranks for events and replay. 0: the system chooses. */
  readonly httpPort?: number
  /** Null: no events. */
  readonly eventsPort?: number | null
  readonly replayPort?: number
  readonly engine?: Partial<Omit<EngineOptions, 'outputTokens' | 'onToken' | 'onFinished' | 'onEvents'>>
  readonly worker?: Partial<
    Pick<
      WorkerOptions,
      | 'flavour'
      | 'ranks'
      | 'loras'
      | 'topic'
      | 'eventHashes'
      | 'bufferSteps'
      | 'timeScale'
      | 'defaultOutputTokens'
      | 'maxSequences'
      | 'promptTokensDetails'
      | 'requestIdHeaders'
      | 'bodyLimitBytes'
      | 'storedResponses'
      | 'scaleOut'
      | 'faultControl'
      | 'startDelayMs'
      | 'misreport'
    >
  >
  readonly clock?: Clock
  readonly random?: () => number
  readonly wallSeconds?: () => number
}

export const workerDefaults = {
  flavour: vllm,
  host: '127.0.0.1',
  ranks: 1,
  loras: [],
  topic: '',
  eventHashes: 'int',
  bufferSteps: 10_000,
  timeScale: 1,
  defaultOutputTokens: 16,
  maxSequences: 1_024,
  promptTokensDetails: true,
  requestIdHeaders: false,
  bodyLimitBytes: 256 * 1024 * 1024,
  storedResponses: 1_000,
  scaleOut: false,
  faultControl: false,
  startDelayMs: 0,
  misreport: [],
} as const satisfies Partial<WorkerOptions>

export interface Simulators {
  readonly urls: readonly string[]
  readonly workers: readonly SimulatedWorker[]
  stop(): Promise<void>
}

/** Starts simulated engines of one model; all or none. Rejects with PORT_IN_USE. */
export async function startSimulators(options: SimulatorsOptions): Promise<Simulators> {
  const vocabulary = await outputVocabulary(options.tokenizer)
  const { httpPort = 0, eventsPort = 0, replayPort = 0 } = options
  const ranks = options.worker?.ranks ?? workerDefaults.ranks
  const port = (first: number, step: number): number => (first === 0 ? 0 : first + step)
  const workers = Array.from(
    { length: options.workers },
    (_, at) =>
      new SimulatedWorker({
        ...workerDefaults,
        ...options.worker,
        host: options.host ?? workerDefaults.host,
        httpPort: port(httpPort, at),
        eventsPort: eventsPort === null ? null : port(eventsPort, at * ranks),
        replayPort: port(replayPort, at * ranks),
        model: options.model,
        tokenizer: options.tokenizer,
        vocabulary,
        engine: options.engine ?? {},
        clock: options.clock ?? systemClock,
        monotonicMs: () => Number(process.hrtime.bigint()) / 1e6,
        random: options.random ?? Math.random,
        wallSeconds: options.wallSeconds ?? (() => Date.now() / 1_000),
      }),
  )
  const stop = async (): Promise<void> => {
    await Promise.all(workers.map((worker) => worker.stop()))
  }
  try {
    for (const worker of workers) await worker.start()
  } catch (fault) {
    await stop()
    throw fault
  }
  return { urls: workers.map(({ url }) => url), workers, stop }
}
