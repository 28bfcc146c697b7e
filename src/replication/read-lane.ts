import { readCommand, readsOf, type StreamEntries, type StreamPosition, type StreamReads } from './redis-commands.ts'
import type { RedisConnection } from './redis-connection.ts'
import { faultOf, RedisFault } from './redis-fault.ts'

/**
 * Reads that wait, on a connection of their own that is opened when it is first needed: on a shared one they would hold up
 * whatever comes after them.
 */
export class ReadLane implements StreamReads {
  readonly #open: () => Promise<RedisConnection>
  readonly #commandMs: number
  #connection: Promise<RedisConnection> | null = null
  #isClosed = false

  constructor(open: () => Promise<RedisConnection>, commandMs: number) {
    this.#open = open
    this.#commandMs = commandMs
  }

  async read(after: readonly StreamPosition[], most: number, waitMs: number): Promise<StreamEntries[]> {
    if (this.#isClosed) throw new RedisFault('unreachable', 'closed')
    const connection = (this.#connection ??= this.#open())
    try {
      return readsOf(await (await connection).send(readCommand(after, most, waitMs), waitMs + this.#commandMs))
    } catch (error) {
      // After an error answer the connection is as good as before; after any other fault the next read opens another.
      const { reason } = faultOf(error)
      if (reason !== 'error' && this.#connection === connection) this.drop()
      throw error
    }
  }

  /** Ends the connection; a read under way fails, the next one opens another. */
  drop(): void {
    const connection = this.#connection
    this.#connection = null
    connection?.then((opened) => opened.close()).catch(() => undefined)
  }

  close(): void {
    this.#isClosed = true
    this.drop()
  }
}
