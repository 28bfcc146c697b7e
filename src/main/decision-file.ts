import { createWriteStream, existsSync, renameSync, statSync, type WriteStream } from 'node:fs'
import type { RecordedRequest, RequestRecorder } from '../pipeline/recorded.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'

export interface DecisionFileOptions {
  readonly path: string
  /** A file of so many bytes is put aside, and a new one begun. */
  readonly fileBytes: number
  /** Those put aside that are kept, as PATH.1 (the newest), PATH.2, … */
  readonly keptFiles: number
  readonly metrics: Metrics
  readonly log: Log
}

/** Bytes that may wait for a slow disk; further lines are dropped and counted. */
const waitingBytes = 16 * 1024 * 1024
const head = `${JSON.stringify({ format: 'warmroute-decisions', version: 1 })}\n`

/**
 * The decision log: a line of JSON for each answered request, for asking later what another policy would have made of this
 * traffic (`warmroute replay`, docs/replay.md). A disk that is full or slow costs lines, never a request.
 */
export class DecisionFile implements RequestRecorder {
  readonly #o: DecisionFileOptions
  #stream: WriteStream | null
  #bytes = 0

  constructor(options: DecisionFileOptions) {
    this.#o = options
    this.#stream = this.#opened()
  }

  record(request: RecordedRequest): void {
    const { metrics, fileBytes } = this.#o
    if (this.#stream === null || this.#stream.writableLength > waitingBytes) {
      metrics.decisionLogDropped.add(1)
      return
    }
    const line = lineOf(request)
    this.#stream.write(line)
    this.#bytes += line.length
    if (this.#bytes >= fileBytes) this.#rotate()
  }

  /** Fulfilled once everything is written. */
  async close(): Promise<void> {
    const stream = this.#stream
    this.#stream = null
    if (stream === null) return
    await new Promise<void>((resolve) => {
      stream.once('error', () => resolve())
      stream.end(resolve)
    })
  }

  #rotate(): void {
    this.#stream?.end()
    this.#putAside()
    this.#stream = this.#opened()
  }

  #putAside(): void {
    const { path, keptFiles, log } = this.#o
    try {
      for (let file = keptFiles; file > 1; file--)
        if (existsSync(`${path}.${file - 1}`)) renameSync(`${path}.${file - 1}`, `${path}.${file}`)
      if (keptFiles > 0) renameSync(path, `${path}.1`)
    } catch (error) {
      log.error({ path, error: String(error) }, 'the decision log cannot be put aside')
    }
  }

  #opened(): WriteStream {
    const { path, keptFiles, log } = this.#o
    const isOld = keptFiles > 0 && existsSync(path) && statSync(path).size > 0
    this.#bytes = isOld ? statSync(path).size : 0
    const stream = createWriteStream(path, { flags: isOld ? 'a' : 'w', mode: 0o600 })
    stream.on('error', (error) => {
      if (this.#stream === stream) this.#stream = null
      log.error({ path, error: String(error) }, 'the decision log cannot be written: requests are no longer recorded')
    })
    // A file that goes on gets a head as well: what is read begins anew at each.
    stream.write(head)
    this.#bytes += head.length
    return stream
  }
}

function lineOf(request: RecordedRequest): string {
  const { keys } = request
  return `${JSON.stringify({
    time_ms: request.timeMs,
    model: request.model,
    block_size: request.blockSize,
    prompt_tokens: request.promptTokens,
    output_tokens: request.outputTokens,
    worker: request.worker,
    predicted_cached_tokens: request.predictedCachedTokens,
    ...(request.cachedTokens === null ? {} : { cached_tokens: request.cachedTokens }),
    keys: Buffer.from(keys.buffer, keys.byteOffset, keys.byteLength).toString('base64'),
  })}\n`
}
