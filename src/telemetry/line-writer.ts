import { write, writeSync } from 'node:fs'

/** Bytes gathered before they are written. */
const bufferBytes = 256 * 1024
/** Bytes that may wait for a slow reader; further lines are dropped and counted. */
const pendingLimitBytes = 16 * 1024 * 1024

/**
 * Writes lines to a file descriptor in large pieces, never waiting for the reader. Each line is encoded once into a
 * buffer: joining thousands of strings and encoding the whole cost three times as much for each line (measured).
 */
export class LineWriter {
  dropped = 0
  readonly #fileDescriptor: number
  /** A buffer that was written out, to be filled again. */
  #spare: Buffer | null = null
  #buffer: Buffer = Buffer.allocUnsafeSlow(bufferBytes)
  #used = 0
  readonly #pending: Buffer[] = []
  #pendingBytes = 0
  #writing = false
  #broken = false

  constructor(fileDescriptor: number) {
    this.#fileDescriptor = fileDescriptor
  }

  write(line: string): void {
    // A UTF-16 unit takes at most three bytes.
    const most = line.length * 3
    if (most > bufferBytes - this.#used) {
      this.#seal()
      if (most > bufferBytes) {
        this.#enqueue(Buffer.from(line))
        return
      }
    }
    this.#used += this.#buffer.write(line, this.#used)
  }

  /** Hands over what has been gathered. */
  flush(): void {
    this.#seal()
  }

  /** Writes everything now, waiting for it: for the end of the process. */
  flushSync(): void {
    // What is being written in the background stays first in the queue until it is done, and is not written twice.
    const first = this.#writing ? 1 : 0
    const rest = [...this.#pending.slice(first), this.#buffer.subarray(0, this.#used)]
    this.#pending.length = first
    this.#used = 0
    for (const piece of rest) {
      try {
        writeSync(this.#fileDescriptor, piece)
      } catch {
        return
      }
    }
  }

  #seal(): void {
    if (this.#used === 0) return
    this.#enqueue(this.#buffer.subarray(0, this.#used))
    this.#buffer = this.#spare ?? Buffer.allocUnsafeSlow(bufferBytes)
    this.#spare = null
    this.#used = 0
  }

  #enqueue(piece: Buffer): void {
    if (this.#broken) return
    if (this.#pendingBytes + piece.length > pendingLimitBytes) {
      for (let at = piece.indexOf(10); at !== -1; at = piece.indexOf(10, at + 1)) this.dropped++
      return
    }
    this.#pending.push(piece)
    this.#pendingBytes += piece.length
    if (!this.#writing) this.#writeNext()
  }

  #writeNext(): void {
    const [piece] = this.#pending
    if (piece === undefined) return
    this.#writing = true
    write(this.#fileDescriptor, piece, (error, written) => {
      this.#writing = false
      if (error?.code === 'EAGAIN') {
        setTimeout(() => this.#writeNext(), 10).unref()
        return
      }
      if (error !== null) {
        // The reader is gone: there is nobody left to tell.
        this.#broken = true
        this.#pending.length = 0
        return
      }
      this.#pendingBytes -= written
      if (written < piece.length) this.#pending[0] = piece.subarray(written)
      else {
        this.#pending.shift()
        if (piece.buffer.byteLength === bufferBytes) this.#spare = Buffer.from(piece.buffer)
      }
      this.#writeNext()
    })
  }
}
