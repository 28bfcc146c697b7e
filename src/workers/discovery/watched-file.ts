import { readFile, stat } from 'node:fs/promises'

export interface WatchedFileOptions {
  readonly path: string
  readonly pollMs: number
  /** Content that is known already; absent: the first one read is told as well. */
  readonly known?: string
  readonly changed: (text: string) => void
  /** Told at each look that finds nothing new. */
  readonly same?: () => void
  /** The file cannot be read; told once until it can, and then what it holds, be it as before. */
  readonly failed: (reason: string) => void
}

/**
 * Tells when a file has other content than before. It asks the file system in turn rather than to be told by it: that sees
 * a file that is written in place, one that is moved into its place, and Kubernetes' swap of a link far above it alike, on
 * every kind of mount. A change counts once the file has looked the same twice, so that none is read half-written.
 */
export class WatchedFile {
  readonly #o: WatchedFileOptions
  #text: string | null
  /** How the file looked when it was last read, and at the last look. */
  #readAs = ''
  #seenAs = ''
  #failing = false
  #timer: NodeJS.Timeout | null = null
  #stopped = false

  constructor(options: WatchedFileOptions) {
    this.#o = options
    this.#text = options.known ?? null
  }

  start(): void {
    void this.#look(this.#text === null)
  }

  stop(): void {
    this.#stopped = true
    if (this.#timer !== null) clearTimeout(this.#timer)
  }

  async #look(atOnce: boolean): Promise<void> {
    try {
      const looks = await looksOf(this.#o.path)
      const isSettled = atOnce || looks === this.#seenAs
      this.#seenAs = looks
      if (this.#stopped) return
      if (looks === this.#readAs) this.#o.same?.()
      else if (isSettled) await this.#read(looks)
    } finally {
      if (!this.#stopped) {
        this.#timer = setTimeout(() => void this.#look(false), this.#o.pollMs)
        this.#timer.unref()
      }
    }
  }

  async #read(looks: string): Promise<void> {
    let text: string
    try {
      text = await readFile(this.#o.path, 'utf8')
    } catch (error) {
      if (!this.#failing && !this.#stopped) this.#o.failed((error as Error).message)
      this.#failing = true
      this.#readAs = ''
      return
    }
    const isNews = text !== this.#text || this.#failing
    this.#failing = false
    this.#readAs = looks
    if (!isNews || this.#stopped) return
    this.#text = text
    this.#o.changed(text)
  }
}

/** Differs whenever another file is there, or the same one was written to. */
async function looksOf(path: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true })
    return [dev, ino, size, mtimeNs, ctimeNs].join(' ')
  } catch (error) {
    return (error as { code?: string }).code ?? 'unreadable'
  }
}
