import { RedisFault } from './redis-fault.ts'
import { isList } from './redis-server.ts'
import type { Command, Reply } from './redis-connection.ts'

/** One entry of a stream. */
export interface StreamEntry {
  /** As Redis numbered it: milliseconds of its clock, a dash, a count. */
  readonly id: string
  /** Names and values in turn. */
  readonly fields: readonly Buffer[]
}

export interface StreamPosition {
  /** Key of the stream. */
  readonly stream: string
  /** Id of the last entry that was read; `0-0`: none. */
  readonly id: string
}

export interface StreamEntries {
  readonly stream: string
  readonly entries: readonly StreamEntry[]
}

/** Reads streams and waits for what comes; a call at a time. */
export interface StreamReads {
  /** At most `most` entries of each stream after the given ones, oldest first; waits for a first one up to `waitMs` (0: not at all). */
  read(after: readonly StreamPosition[], most: number, waitMs: number): Promise<StreamEntries[]>
}

/**
 * The commands of Redis that are used, and no others: those that Redis 7, Valkey and KVRocks have alike. Keys are whole
 * keys; RedisLink.key makes them. Each rejects with a RedisFault, within the time limit of a command.
 */
export interface RedisCommands extends StreamReads {
  /** Adds an entry with one field, and lets the stream hold about `maxEntries`. The id that it got. */
  append(stream: string, field: string, value: Buffer, maxEntries: number): Promise<string>
  /** Drops entries that are older than this one, about. */
  trimBefore(stream: string, id: string): Promise<void>
  /** Null: the stream is empty. */
  lastId(stream: string): Promise<string | null>
  /** From and to an id, both included; `-` and `+` are the ends. */
  range(stream: string, from: string, to: string, most: number): Promise<StreamEntry[]>
  get(keys: readonly string[]): Promise<(Buffer | null)[]>
  /** Without a time to live the value stays. */
  set(key: string, value: string | Buffer, ttlMs: number | null): Promise<void>
  /** Which of them were not there, and are now. */
  setIfAbsent(keys: readonly string[], value: string, ttlMs: number): Promise<boolean[]>
  /** Gives each a new time to live; which of them were there. */
  expire(keys: readonly string[], ttlMs: number): Promise<boolean[]>
  delete(keys: readonly string[]): Promise<void>
}

/** Where commands go; reads that wait have a connection of their own. */
export interface RedisWire extends StreamReads {
  send(command: Command): Promise<Reply>
  sendAll(commands: readonly Command[]): Promise<(Reply | RedisFault)[]>
}

/** Every command that is sent, for users with few rights; docs/replicas.md lists the same. */
export const usedCommands = [
  'SET',
  'GET',
  'MGET',
  'DEL',
  'PEXPIRE',
  'XADD',
  'XTRIM',
  'XREAD',
  'XRANGE',
  'XREVRANGE',
] as const

/** The commands over connections. */
export class WireCommands implements RedisCommands {
  readonly #wire: RedisWire

  constructor(wire: RedisWire) {
    this.#wire = wire
  }

  async append(stream: string, field: string, value: Buffer, maxEntries: number): Promise<string> {
    return text(await this.#wire.send(['XADD', stream, 'MAXLEN', '~', maxEntries, '*', field, value]))
  }

  async trimBefore(stream: string, id: string): Promise<void> {
    await this.#wire.send(['XTRIM', stream, 'MINID', '~', id])
  }

  read(after: readonly StreamPosition[], most: number, waitMs: number): Promise<StreamEntries[]> {
    return this.#wire.read(after, most, waitMs)
  }

  async lastId(stream: string): Promise<string | null> {
    const [last] = entriesOf(await this.#wire.send(['XREVRANGE', stream, '+', '-', 'COUNT', 1]))
    return last?.id ?? null
  }

  async range(stream: string, from: string, to: string, most: number): Promise<StreamEntry[]> {
    return entriesOf(await this.#wire.send(['XRANGE', stream, from, to, 'COUNT', most]))
  }

  async get(keys: readonly string[]): Promise<(Buffer | null)[]> {
    if (keys.length === 0) return []
    const values = await this.#wire.send(['MGET', ...keys])
    return (isList(values) ? values : []).map((value) => (value instanceof Buffer ? value : null))
  }

  async set(key: string, value: string | Buffer, ttlMs: number | null): Promise<void> {
    await this.#wire.send(ttlMs === null ? ['SET', key, value] : ['SET', key, value, 'PX', ttlMs])
  }

  async setIfAbsent(keys: readonly string[], value: string, ttlMs: number): Promise<boolean[]> {
    const answers = await this.#all(keys.map((key) => ['SET', key, value, 'NX', 'PX', ttlMs]))
    return answers.map((answer) => answer !== null)
  }

  async expire(keys: readonly string[], ttlMs: number): Promise<boolean[]> {
    return (await this.#all(keys.map((key) => ['PEXPIRE', key, ttlMs]))).map((answer) => answer === 1)
  }

  async delete(keys: readonly string[]): Promise<void> {
    if (keys.length > 0) await this.#wire.send(['DEL', ...keys])
  }

  async #all(commands: readonly Command[]): Promise<Reply[]> {
    if (commands.length === 0) return []
    return (await this.#wire.sendAll(commands)).map((answer) => {
      if (answer instanceof RedisFault) throw answer
      return answer
    })
  }
}

export function readCommand(after: readonly StreamPosition[], most: number, waitMs: number): Command {
  const wait = waitMs > 0 ? ['BLOCK', waitMs] : []
  return [
    'XREAD',
    'COUNT',
    most,
    ...wait,
    'STREAMS',
    ...after.map(({ stream }) => stream),
    ...after.map(({ id }) => id),
  ]
}

/** [[stream, entries], …], or nil when there are none. */
export function readsOf(reply: Reply): StreamEntries[] {
  return (isList(reply) ? reply : []).map((pair) => {
    const [stream, entries] = isList(pair) ? pair : []
    return { stream: text(stream), entries: entriesOf(entries ?? null) }
  })
}

/** [[id, [name, value, …]], …] */
function entriesOf(reply: Reply): StreamEntry[] {
  return (isList(reply) ? reply : []).map((pair) => {
    const [id, fields] = isList(pair) ? pair : []
    return { id: text(id), fields: (isList(fields) ? fields : []).filter(isBuffer) }
  })
}

function isBuffer(reply: Reply): reply is Buffer {
  return reply instanceof Buffer
}

function text(reply: Reply | undefined): string {
  if (reply instanceof Buffer) return reply.toString()
  throw new RedisFault('error', 'the answer has a form that was not expected')
}
