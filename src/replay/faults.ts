import { RouterError } from '../errors.ts'
import { mix32, seededRandom, type Random } from '../simulator/random.ts'

/** What goes wrong in a run, or changes. Times are from the run's start. */
export type ReplayFault =
  /** An engine dies with its cache; the router sends on what it had. It is back, empty, after a while. */
  | { readonly kind: 'restart'; readonly worker: number; readonly atMs: number; readonly downMs: number }
  /** From then on a worker computes so many times as slowly. */
  | { readonly kind: 'slow'; readonly worker: number; readonly atMs: number; readonly factor: number }
  /** So many workers join, empty. */
  | { readonly kind: 'scale-out'; readonly workers: number; readonly atMs: number }
  /** The router begins anew and knows nothing but what the engines tell again of their last batches, as many as they keep. */
  | { readonly kind: 'router-restart'; readonly atMs: number; readonly keptBatches: number }
  /** This share of event batches does not arrive. A later one shows the gap: it is filled, or the worker is forgotten. */
  | { readonly kind: 'lost-events'; readonly share: number; readonly repair: 'replay' | 'forget' }
  /** Others send requests straight to a worker, or to each: prompts that nobody repeats, which drive out what is cached. */
  | {
      readonly kind: 'foreign'
      readonly worker?: number
      readonly requestsPerSecond: number
      readonly promptTokens: number
      readonly outputTokens: number
      readonly fromMs: number
      readonly untilMs: number
    }

/** What a run lets faults do. */
export interface FaultPort {
  at(ms: number, run: () => void): void
  stop(worker: number): void
  start(worker: number): void
  slowDown(worker: number, factor: number): void
  restartRouter(): void
  sendForeign(worker: number, promptTokens: number, outputTokens: number): void
  /** Workers that are there from the start. */
  readonly workers: number
}

/** Workers that a run has at most: those there from the start and those that join. */
export function mostWorkers(workers: number, faults: readonly ReplayFault[]): number {
  return faults.reduce((sum, fault) => sum + (fault.kind === 'scale-out' ? fault.workers : 0), workers)
}

export function schedule(faults: readonly ReplayFault[], port: FaultPort, seed: number): void {
  let joined = port.workers
  for (const [index, fault] of faults.entries()) {
    const random = seededRandom(mix32(seed ^ 0x1f83d9ab) + index)
    switch (fault.kind) {
      case 'restart':
        if (port.workers < 2)
          throw new RouterError(
            'CONFIG_INVALID',
            'Where an engine restarts there is another one to send its requests to',
          )
        port.at(fault.atMs, () => port.stop(fault.worker))
        port.at(fault.atMs + fault.downMs, () => port.start(fault.worker))
        break
      case 'slow':
        port.at(fault.atMs, () => port.slowDown(fault.worker, fault.factor))
        break
      case 'scale-out':
        for (let i = 0; i < fault.workers; i++) {
          const worker = joined++
          port.stop(worker)
          port.at(fault.atMs, () => port.start(worker))
        }
        break
      case 'router-restart':
        port.at(fault.atMs, () => port.restartRouter())
        break
      case 'foreign':
        for (let worker = 0; worker < port.workers; worker++)
          if (worker === (fault.worker ?? worker)) foreign(fault, worker, fault.fromMs, port, random)
        break
      case 'lost-events':
        break
      default:
        fault satisfies never
    }
  }
}

type Foreign = Extract<ReplayFault, { kind: 'foreign' }>

/** One after the other, at random. */
function foreign(fault: Foreign, worker: number, fromMs: number, port: FaultPort, random: Random): void {
  const atMs = fromMs + random.exponential(1000 / fault.requestsPerSecond)
  if (atMs >= fault.untilMs) return
  port.at(atMs, () => {
    port.sendForeign(worker, fault.promptTokens, fault.outputTokens)
    foreign(fault, worker, atMs, port, random)
  })
}
