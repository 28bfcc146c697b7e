/**
 * A snapshot in Redis, a value for each frame:
 *
 *     {prefix}:snapshot             name and number of chunks of the last one that was finished, as JSON; written last
 *     {prefix}:snapshot:NAME:0 …    its chunks
 *     {prefix}:snapshot:NAME:head   its header
 *
 * The one before is deleted after that, and what a writer leaves that died runs out. Whoever still reads the one before
 * finds a chunk missing, and tries again or goes on without.
 */
import { SnapshotError } from '../map/snapshot.ts'
import type { RedisCommands } from './redis-commands.ts'
import type { KeptSnapshot, SnapshotDraft, SnapshotStore } from './snapshot-store.ts'

export interface SnapshotRedisOptions {
  readonly commands: Pick<RedisCommands, 'get' | 'set' | 'expire' | 'delete'>
  /** The whole key of a name, as RedisLink.key. */
  readonly key: (name: string) => string
  /** A name that no other snapshot has, of letters and digits. */
  readonly newName: () => string
  /** A larger one is given up. */
  readonly maxBytes: number
  /** Life of what is written while it is not finished: longer than making one may take. */
  readonly draftMs: number
  /** Life of one that is finished, unless the next one takes its place. */
  readonly keepMs: number
}

interface Pointer {
  readonly name: string
  readonly chunks: number
}

const pointerKey = 'snapshot'
/** Keys in one command. */
const keysAtOnce = 64

export class SnapshotRedis implements SnapshotStore {
  readonly #o: SnapshotRedisOptions

  constructor(options: SnapshotRedisOptions) {
    this.#o = options
  }

  write(): Promise<SnapshotDraft> {
    return Promise.resolve(new RedisDraft(this.#o))
  }

  async read(): Promise<KeptSnapshot | null> {
    const pointer = await readPointer(this.#o)
    if (pointer === null) return null
    const value = async (key: string): Promise<Uint8Array> => {
      const [found] = await this.#o.commands.get([key])
      if (found == null) throw new SnapshotError('truncated', 'A part of the snapshot is not in Redis any more')
      return found
    }
    return {
      header: () => value(headerKey(this.#o, pointer.name)),
      chunk: (number) => value(chunkKey(this.#o, pointer.name, number)),
      close: () => Promise.resolve(),
    }
  }
}

class RedisDraft implements SnapshotDraft {
  readonly #o: SnapshotRedisOptions
  readonly #name: string
  #chunks = 0
  #bytes = 0
  #isOpen = true

  constructor(options: SnapshotRedisOptions) {
    this.#o = options
    this.#name = options.newName()
  }

  async chunk(frame: Buffer): Promise<void> {
    await this.#put(chunkKey(this.#o, this.#name, this.#chunks++), frame)
  }

  async header(frame: Buffer): Promise<void> {
    const { commands, key, keepMs } = this.#o
    const before = await readPointer(this.#o)
    await this.#put(headerKey(this.#o, this.#name), frame)
    for (const keys of this.#keys(this.#name, this.#chunks)) {
      const were = await commands.expire(keys, keepMs)
      if (were.includes(false))
        throw new SnapshotError('truncated', 'A part of the snapshot was gone from Redis before it was finished')
    }
    const pointer: Pointer = { name: this.#name, chunks: this.#chunks }
    await commands.set(key(pointerKey), JSON.stringify(pointer), keepMs)
    this.#isOpen = false
    if (before !== null) await this.#delete(before.name, before.chunks)
  }

  async abort(): Promise<void> {
    if (!this.#isOpen) return
    this.#isOpen = false
    await this.#delete(this.#name, this.#chunks)
  }

  async #put(key: string, frame: Buffer): Promise<void> {
    const { commands, maxBytes, draftMs } = this.#o
    this.#bytes += frame.length
    if (this.#bytes > maxBytes)
      throw new SnapshotError('oversize', `The snapshot is larger than snapshot.maxBytes (${maxBytes})`)
    await commands.set(key, frame, draftMs)
  }

  async #delete(name: string, chunks: number): Promise<void> {
    for (const keys of this.#keys(name, chunks)) await this.#o.commands.delete(keys)
  }

  /** A command each, lest one holds up the others for long. */
  *#keys(name: string, chunks: number): Iterable<string[]> {
    const keys = [headerKey(this.#o, name)]
    for (let number = 0; number < chunks; number++) keys.push(chunkKey(this.#o, name, number))
    for (let at = 0; at < keys.length; at += keysAtOnce) yield keys.slice(at, at + keysAtOnce)
  }
}

async function readPointer({ commands, key }: SnapshotRedisOptions): Promise<Pointer | null> {
  const [value] = await commands.get([key(pointerKey)])
  if (value == null) return null
  try {
    const { name, chunks } = JSON.parse(value.toString()) as Partial<Pointer>
    if (typeof name === 'string' && /^\w{1,64}$/.test(name) && Number.isSafeInteger(chunks)) {
      return { name, chunks: Math.min(chunks ?? 0, 0xffff) }
    }
  } catch {
    // Told below.
  }
  throw new SnapshotError('malformed', 'What stands in Redis in the place of a snapshot is none')
}

function chunkKey({ key }: SnapshotRedisOptions, name: string, number: number): string {
  return key(`${pointerKey}:${name}:${number}`)
}

function headerKey({ key }: SnapshotRedisOptions, name: string): string {
  return key(`${pointerKey}:${name}:head`)
}
