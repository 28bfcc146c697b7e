import type { Metrics } from '../telemetry/metrics.ts'
import type { Worker } from '../workers/worker.ts'

export interface ProbePorts {
  readonly probeIntervalMs: number
  readonly metrics: Metrics
  /** Compares tokenizing with the worker's own. */
  readonly probe: (worker: Worker) => Promise<'equal' | 'different' | 'unverified'>
}

/** Compares tokenizing with that of one engine, again and again: what holds for its first worker holds for all. */
export class ProbeRounds {
  readonly #o: ProbePorts
  readonly #workers: () => readonly Worker[]
  #timer: NodeJS.Timeout | null = null
  #stopped = false

  constructor(ports: ProbePorts, workers: () => readonly Worker[]) {
    this.#o = ports
    this.#workers = workers
  }

  /** One round now, and others after it. */
  async begin(): Promise<void> {
    this.#pause()
    const [first] = this.#workers()
    if (first !== undefined) {
      const result = await this.#o.probe(first)
      if (this.#stopped) return
      for (const worker of this.#workers()) {
        this.#o.metrics.tokenizerProbes.add(1, worker.id, result)
        if (result === 'different') worker.degraded = 'tokenizer_differs'
        else if (worker.degraded === 'tokenizer_differs' && result === 'equal') worker.degraded = null
      }
    }
    this.#pause()
    this.#timer = setTimeout(() => void this.begin(), this.#o.probeIntervalMs)
    this.#timer.unref()
  }

  stop(): void {
    this.#stopped = true
    this.#pause()
  }

  #pause(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
  }
}
