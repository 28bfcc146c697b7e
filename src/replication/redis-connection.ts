import { Redis } from 'ioredis'
import { faultOf, RedisFault } from './redis-fault.ts'
import { tlsSettings, type Address, type ConnectionLimits, type Login, type TlsFiles } from './redis-options.ts'

/** What Redis answers, in RESP2: texts are Buffers. */
export type Reply = Buffer | number | null | readonly Reply[]

export type Argument = string | number | Buffer
export type Command = readonly [name: string, ...args: Argument[]]

export interface ConnectionOptions extends ConnectionLimits {
  readonly address: Address
  readonly login: Login
  /** Null: no TLS. */
  readonly tls: TlsFiles | null
}

/**
 * One connection to one server, from its opening to its end: it never connects again and never queues. Every command ends
 * within its time, by an answer or a RedisFault; a command whose time is over is still the server's to carry out.
 */
export class RedisConnection {
  readonly address: Address
  /** Settles once, when the connection has ended, with the reason. */
  readonly closed: Promise<RedisFault>
  readonly #redis: Redis
  readonly #limits: ConnectionLimits
  #underWay = 0
  #fault: RedisFault | null = null
  #isClosed = false
  #end: (fault: RedisFault) => void = () => undefined

  /** Connects and logs in, within `connectMs`. Rejects with a RedisFault. */
  static async open(options: ConnectionOptions): Promise<RedisConnection> {
    const connection = new RedisConnection(options)
    try {
      await within(options.connectMs, connection.#begin(options.login), 'no connection')
      return connection
    } catch (error) {
      const fault = connection.#fault ?? faultOf(error)
      connection.close()
      throw fault
    }
  }

  private constructor({ address, tls, ...limits }: ConnectionOptions) {
    this.address = address
    this.#limits = limits
    this.closed = new Promise((resolve) => (this.#end = resolve))
    this.#redis = new Redis({
      host: address.host,
      port: address.port,
      protocol: 2,
      connectTimeout: limits.connectMs,
      disconnectTimeout: 1,
      lazyConnect: true,
      retryStrategy: () => null,
      enableOfflineQueue: false,
      enableReadyCheck: false,
      autoResendUnfulfilledCommands: false,
      disableClientInfo: true,
      ...(tls === null ? {} : { tls: tlsSettings(tls) }),
    })
    this.#redis.on('error', (error: unknown) => (this.#fault ??= faultOf(error)))
    this.#redis.on('end', () => this.#ended())
  }

  /** Rejects with a RedisFault: the answer was an error, did not come in time, or the connection has ended. */
  send([name, ...args]: Command, timeoutMs = this.#limits.commandMs): Promise<Reply> {
    const refusal = this.#refusal()
    if (refusal !== null) return Promise.reject(refusal)
    return this.#timed(this.#redis.callBuffer(name, args) as Promise<Reply>, timeoutMs)
  }

  /** Several commands in one write; an error answer stands at its place. Rejects as `send` does where all failed together. */
  async sendAll(commands: readonly Command[]): Promise<(Reply | RedisFault)[]> {
    const refusal = this.#refusal()
    if (refusal !== null) throw refusal
    return this.#pipelined(commands)
  }

  /** The same beyond the limit of commands under way, for what finds out whether any of them will be answered. */
  async sendAlways(commands: readonly Command[]): Promise<(Reply | RedisFault)[]> {
    if (this.#isClosed) throw new RedisFault('unreachable', 'not connected')
    return this.#pipelined(commands)
  }

  /** Ends at once; commands under way fail. */
  close(): void {
    this.#isClosed = true
    this.#redis.disconnect()
    this.#ended()
  }

  async #begin(login: Login): Promise<void> {
    await this.#redis.connect()
    const commands: Command[] = []
    if (login.password !== undefined) {
      commands.push(['AUTH', ...(login.username === undefined ? [] : [login.username]), login.password])
    }
    if (login.database !== 0) commands.push(['SELECT', login.database])
    const needed = commands.length
    // A name for those who look at the server's list of clients; a user without the right to it goes without.
    commands.push(['CLIENT', 'SETNAME', 'warmroute'])
    for (const [at, answer] of (await this.sendAll(commands)).entries()) {
      if (answer instanceof RedisFault && (at < needed || answer.reason === 'max_clients')) throw answer
    }
  }

  async #pipelined(commands: readonly Command[]): Promise<(Reply | RedisFault)[]> {
    const pipeline = this.#redis.pipeline()
    for (const [name, ...args] of commands) pipeline.callBuffer(name, args)
    const answers = await this.#timed(pipeline.exec(), this.#limits.commandMs)
    return (answers ?? []).map(([error, reply]) => (error === null ? (reply as Reply) : faultOf(error)))
  }

  #refusal(): RedisFault | null {
    if (this.#isClosed) return new RedisFault('unreachable', 'not connected')
    // Commands whose time is over count until they are answered: a server that hangs must not gather them.
    return this.#underWay < this.#limits.commandsUnderWay
      ? null
      : new RedisFault('full', `${this.#underWay} commands are under way`)
  }

  async #timed<Answer>(work: Promise<Answer>, timeoutMs: number): Promise<Answer> {
    this.#underWay++
    const settled = work.finally(() => this.#underWay--)
    try {
      return await within(timeoutMs, settled, 'no answer')
    } catch (error) {
      throw faultOf(error)
    }
  }

  #ended(): void {
    this.#isClosed = true
    this.#end(this.#fault ?? new RedisFault('unreachable', 'the connection was closed'))
  }
}

/**
 * The promise's result, or a RedisFault when its time is over. Where this process itself stood still meanwhile, what has
 * arrived by then is read first.
 */
function within<Answer>(timeoutMs: number, work: Promise<Answer>, what: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      setImmediate(() => reject(new RedisFault('timeout', `${what} within ${timeoutMs} ms`)))
    }, timeoutMs)
    work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}
