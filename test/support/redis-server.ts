import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'

/* Real Redis servers of a test's own: in a folder of their own, on a free port, gone with the test. */

export interface RedisServerOptions {
  readonly password?: string
  /** Lines of an ACL file, e.g. `user router on >secret ~{warmroute}:* +get`. */
  readonly users?: readonly string[]
  /** TLS only, with the certificates of test/fixtures/tls; `clients` asks for a client certificate. */
  readonly tls?: { readonly clients: boolean }
  /** Further lines of the configuration, e.g. `['maxmemory', '2mb']`. */
  readonly settings?: readonly (readonly [name: string, value: string])[]
  /** A Sentinel; its own settings say what it watches. */
  readonly sentinel?: boolean
  /** Omitted: a free one. */
  readonly port?: number
  /** Another server that speaks the protocol (valkey-server). */
  readonly program?: string
}

export interface RedisServer {
  readonly port: number
  /** With the password of the options, where there is one. */
  readonly url: string
  readonly folder: string
  /** An unhurried client for the test itself, with all rights; made at first use. */
  readonly client: Redis
  /** Everything that it and its `restart`s have printed. */
  readonly output: () => string
  pause(): void
  resume(): void
  /** Ends it at once, as a crash would; also when paused. */
  kill(): Promise<void>
  /** Starts it again on its port, empty unless it was told to save. */
  restart(): Promise<void>
}

export const tlsFile = (name: string): string => fileURLToPath(new URL(`../fixtures/tls/${name}`, import.meta.url))

const readPem = (name: string): Buffer => readFileSync(tlsFile(name))

const startMs = 10_000

/** Starts a server; it ends with the test. */
export async function startRedis(
  t: Pick<TestContext, 'after'>,
  options: RedisServerOptions = {},
): Promise<RedisServer> {
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-redis-'))
  const port = options.port ?? (await freePort())
  const file = join(folder, 'redis.conf')
  writeFileSync(file, settingsOf(options, port, folder))
  const server = new Started(options.program ?? 'redis-server', [
    file,
    ...(options.sentinel === true ? ['--sentinel'] : []),
  ])
  let client: Redis | undefined
  t.after(async () => {
    client?.disconnect()
    await server.kill()
    rmSync(folder, { recursive: true, force: true })
  })
  await server.start()
  const scheme = options.tls === undefined ? 'redis' : 'rediss'
  const password = options.password === undefined ? '' : `:${options.password}@`
  return {
    port,
    url: `${scheme}://${password}${options.tls === undefined ? '127.0.0.1' : 'localhost'}:${port}`,
    folder,
    get client() {
      client ??= testClient(port, options)
      return client
    },
    output: () => server.output,
    pause: () => server.signal('SIGSTOP'),
    resume: () => server.signal('SIGCONT'),
    kill: () => server.kill(),
    restart: () => server.start(),
  }
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert.ok(address !== null && typeof address === 'object')
  server.close()
  await once(server, 'close')
  return address.port
}

function settingsOf(options: RedisServerOptions, port: number, folder: string): string {
  const settings: (readonly [string, string])[] = [
    ['bind', '127.0.0.1'],
    ['dir', folder],
    ['save', '""'],
    ['appendonly', 'no'],
    ['port', options.tls === undefined ? String(port) : '0'],
  ]
  if (options.tls !== undefined) {
    settings.push(
      ['tls-port', String(port)],
      ['tls-cert-file', tlsFile('server.pem')],
      ['tls-key-file', tlsFile('server.key')],
      ['tls-ca-cert-file', tlsFile('ca.pem')],
      ['tls-auth-clients', options.tls.clients ? 'yes' : 'no'],
    )
  }
  if (options.password !== undefined) settings.push(['requirepass', options.password])
  if (options.users !== undefined) {
    const file = join(folder, 'users.acl')
    writeFileSync(file, ['user default on nopass ~* &* +@all', ...options.users, ''].join('\n'))
    settings.push(['aclfile', file])
  }
  settings.push(...(options.settings ?? []))
  return settings.map(([name, value]) => `${name} ${value}\n`).join('')
}

function testClient(port: number, { password, tls }: RedisServerOptions): Redis {
  const client = new Redis({
    port,
    host: '127.0.0.1',
    protocol: 2,
    enableReadyCheck: false,
    disableClientInfo: true,
    maxRetriesPerRequest: null,
    retryStrategy: () => 20,
    ...(password === undefined ? {} : { password }),
    ...(tls === undefined
      ? {}
      : { tls: { rejectUnauthorized: false, cert: readPem('client.pem'), key: readPem('client.key') } }),
  })
  client.on('error', () => undefined)
  return client
}

/** A process that says when it is ready, and never outlives this one. */
class Started {
  readonly #program: string
  readonly #args: readonly string[]
  #child: ChildProcess | undefined
  output = ''

  constructor(program: string, args: readonly string[]) {
    this.#program = program
    this.#args = args
  }

  async start(): Promise<void> {
    const from = this.output.length
    const child = spawn(this.#program, this.#args, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#child = child
    const endWithUs = (): void => void child.kill('SIGKILL')
    process.once('exit', endWithUs)
    child.once('exit', () => process.off('exit', endWithUs))
    await new Promise<void>((resolve, reject) => {
      const failed = (why: string): void => {
        child.kill('SIGKILL')
        reject(new Error(`${this.#program} ${why}; "npm run verify" installs redis-server\n${this.output.slice(from)}`))
      }
      const late = setTimeout(() => failed(`was not ready after ${startMs} ms`), startMs)
      const said = (chunk: Buffer): void => {
        this.output += chunk.toString()
        if (!/Ready to accept connections|\+monitor|# Sentinel ID/.test(this.output.slice(from))) return
        clearTimeout(late)
        resolve()
      }
      child.stdout.on('data', said)
      child.stderr.on('data', said)
      child.once('error', (error) => {
        clearTimeout(late)
        failed(`does not start: ${error.message}`)
      })
      child.once('exit', (code) => {
        clearTimeout(late)
        failed(`ended with ${code ?? 'a signal'}`)
      })
    })
  }

  signal(signal: NodeJS.Signals): void {
    assert.ok(this.#child?.kill(signal), `${this.#program} is not running`)
  }

  async kill(): Promise<void> {
    const child = this.#child
    this.#child = undefined
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  }
}
