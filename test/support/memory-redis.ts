import type { RedisCommands, StreamEntries, StreamEntry, StreamPosition } from '../../src/replication/redis-commands.ts'
import { RedisFault } from '../../src/replication/redis-fault.ts'

/**
 * The commands of Redis in memory, for tests of what lies above them: exact trims, ids from a count, a time to live by the
 * given clock. `fault` makes every command fail until it is null again.
 */
export class MemoryRedis implements RedisCommands {
  fault: RedisFault | null = null
  readonly #clock: () => number
  readonly #values = new Map<string, { value: Buffer; untilMs: number }>()
  readonly #streams = new Map<string, StreamEntry[]>()
  readonly #waiting = new Set<() => void>()
  #count = 0

  constructor(clock: () => number = () => performance.now()) {
    this.#clock = clock
  }

  /** As FLUSHALL. */
  flush(): void {
    this.#values.clear()
    this.#streams.clear()
  }

  async append(stream: string, field: string, value: Buffer, maxEntries: number): Promise<string> {
    await this.#turn()
    const entries = this.#streams.get(stream) ?? []
    this.#streams.set(stream, entries)
    const id = `${1 + this.#count++}-0`
    entries.push({ id, fields: [Buffer.from(field), value] })
    entries.splice(0, entries.length - maxEntries)
    for (const wake of this.#waiting) wake()
    return id
  }

  async trimBefore(stream: string, id: string): Promise<void> {
    await this.#turn()
    const entries = this.#streams.get(stream) ?? []
    while (entries[0] !== undefined && order(entries[0].id) < order(id)) entries.shift()
  }

  async read(after: readonly StreamPosition[], most: number, waitMs: number): Promise<StreamEntries[]> {
    await this.#turn()
    const found = this.#after(after, most)
    if (found.length > 0 || waitMs === 0) return found
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        clearTimeout(timer)
        this.#waiting.delete(wake)
        resolve()
      }
      const timer = setTimeout(wake, waitMs)
      this.#waiting.add(wake)
    })
    await this.#turn()
    return this.#after(after, most)
  }

  async lastId(stream: string): Promise<string | null> {
    await this.#turn()
    return this.#streams.get(stream)?.at(-1)?.id ?? null
  }

  async range(stream: string, from: string, to: string, most: number): Promise<StreamEntry[]> {
    await this.#turn()
    const entries = this.#streams.get(stream) ?? []
    return entries.filter(({ id }) => order(id) >= order(from) && order(id) <= order(to)).slice(0, most)
  }

  async get(keys: readonly string[]): Promise<(Buffer | null)[]> {
    await this.#turn()
    return keys.map((key) => this.#live(key))
  }

  async set(key: string, value: string | Buffer, ttlMs: number | null): Promise<void> {
    await this.#turn()
    this.#put(key, value, ttlMs ?? Infinity)
  }

  async setIfAbsent(keys: readonly string[], value: string, ttlMs: number): Promise<boolean[]> {
    await this.#turn()
    return keys.map((key) => {
      if (this.#live(key) !== null) return false
      this.#put(key, value, ttlMs)
      return true
    })
  }

  async expire(keys: readonly string[], ttlMs: number): Promise<boolean[]> {
    await this.#turn()
    return keys.map((key) => {
      const value = this.#live(key)
      if (value !== null) this.#put(key, value, ttlMs)
      return value !== null
    })
  }

  async delete(keys: readonly string[]): Promise<void> {
    await this.#turn()
    for (const key of keys) {
      this.#values.delete(key)
      this.#streams.delete(key)
    }
  }

  async #turn(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve))
    if (this.fault !== null) throw this.fault
  }

  #after(after: readonly StreamPosition[], most: number): StreamEntries[] {
    return after
      .map(({ stream, id }) => ({
        stream,
        entries: (this.#streams.get(stream) ?? []).filter((entry) => order(entry.id) > order(id)).slice(0, most),
      }))
      .filter(({ entries }) => entries.length > 0)
  }

  #live(key: string): Buffer | null {
    const found = this.#values.get(key)
    return found !== undefined && found.untilMs > this.#clock() ? found.value : null
  }

  #put(key: string, value: string | Buffer, ttlMs: number): void {
    this.#values.set(key, { value: Buffer.from(value), untilMs: this.#clock() + ttlMs })
  }
}

function order(id: string): number {
  return id === '-' ? -Infinity : id === '+' ? Infinity : Number(id.split('-')[0])
}
