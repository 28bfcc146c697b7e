import { readFileSync } from 'node:fs'
import { RouterError } from '../errors.ts'

/** How Redis is reached and used; the part `redis` of the config has this form. */
export interface RedisOptions extends ConnectionLimits {
  readonly url?: string
  readonly sentinel?: {
    readonly name: string
    readonly nodes: readonly string[]
    readonly username?: string
    readonly password?: string
  }
  readonly cluster?: { readonly nodes: readonly string[] }
  readonly username?: string
  readonly password?: string
  readonly database?: number
  readonly tls?: TlsFiles
  readonly prefix: string
  /** Starting fails while Redis cannot be used. */
  readonly required: boolean
  readonly heartbeatMs: number
  /** Without success for so long, Redis counts as away. */
  readonly awayMs: number
}

export interface ConnectionLimits {
  /** To connect and log in. */
  readonly connectMs: number
  /** For the answer to a command. */
  readonly commandMs: number
  /** Commands without an answer; further ones fail at once. */
  readonly commandsUnderWay: number
}

export interface TlsFiles {
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly serverName?: string
  readonly insecure?: boolean
}

export interface Address {
  readonly host: string
  readonly port: number
}

/** User, password and database on one server. */
export interface Login {
  readonly username?: string | undefined
  readonly password?: string | undefined
  readonly database: number
}

/** The server itself, or who knows which one it is now. */
export type Place =
  | { readonly kind: 'server'; readonly address: Address }
  | { readonly kind: 'sentinel'; readonly name: string; readonly nodes: readonly Address[]; readonly login: Login }
  | { readonly kind: 'cluster'; readonly nodes: readonly Address[] }

/** The options, read. */
export interface Door {
  readonly place: Place
  readonly login: Login
  /** Null: no TLS. */
  readonly tls: TlsFiles | null
}

const defaultPort = 6379

export function doorOf(options: RedisOptions): Door {
  const { username, password, database, tls } = options
  if (options.sentinel !== undefined) {
    const { name, nodes, ...own } = options.sentinel
    const login = { username: own.username, password: own.password, database: 0 }
    const place = { kind: 'sentinel', name, nodes: nodes.map(addressOf), login } as const
    return { place, login: { username, password, database: database ?? 0 }, tls: tls ?? null }
  }
  if (options.cluster !== undefined) {
    const place = { kind: 'cluster', nodes: options.cluster.nodes.map(addressOf) } as const
    return { place, login: { username, password, database: 0 }, tls: tls ?? null }
  }
  if (options.url === undefined || !URL.canParse(options.url)) {
    throw new RouterError('CONFIG_INVALID', 'redis: give one of "url", "sentinel" and "cluster"')
  }
  const url = new URL(options.url)
  const port = url.port === '' ? defaultPort : Number(url.port)
  return {
    place: { kind: 'server', address: { host: withoutBrackets(url.hostname), port } },
    login: {
      username: username ?? written(url.username),
      password: password ?? written(url.password),
      database: database ?? Number(url.pathname.slice(1)),
    },
    tls: tls ?? (url.protocol === 'rediss:' ? {} : null),
  }
}

export interface TlsSettings {
  readonly ca?: Buffer
  readonly cert?: Buffer
  readonly key?: Buffer
  readonly servername?: string
  readonly rejectUnauthorized: boolean
}

/** Reads the certificates anew for each connection, so that renewed ones are taken. Throws RouterError CONFIG_UNREADABLE. */
export function tlsSettings({ ca, cert, key, serverName, insecure }: TlsFiles): TlsSettings {
  return {
    ...(ca === undefined ? {} : { ca: pem(ca) }),
    ...(cert === undefined ? {} : { cert: pem(cert) }),
    ...(key === undefined ? {} : { key: pem(key) }),
    ...(serverName === undefined ? {} : { servername: serverName }),
    rejectUnauthorized: insecure !== true,
  }
}

function pem(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new RouterError('CONFIG_UNREADABLE', `Cannot read ${file} (redis.tls): ${reason}`, { cause })
  }
}

/** HOST:PORT or [HOST]:PORT. */
function addressOf(node: string): Address {
  const colon = node.lastIndexOf(':')
  return { host: withoutBrackets(node.slice(0, colon)), port: Number(node.slice(colon + 1)) }
}

function withoutBrackets(host: string): string {
  return host.replace(/^\[|\]$/g, '')
}

function written(part: string): string | undefined {
  return part === '' ? undefined : decodeURIComponent(part)
}
