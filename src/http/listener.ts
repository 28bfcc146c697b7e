import { readFileSync } from 'node:fs'
import { createServer, type RequestListener, type Server, type ServerOptions, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { createSecureContext, Server as TlsServer, type TlsOptions } from 'node:tls'
import { RouterError } from '../errors.ts'
import { refuseConnect } from './refusal.ts'

export interface ListenerLimits {
  readonly headerBytes: number
  readonly headers: number
  readonly connections: number
  readonly headersMs: number
  readonly requestMs: number
  readonly keepAliveMs: number
}

/** Files of a port's certificate; with `clientCa` only clients that hold one of its certificates get in. */
export interface TlsFiles {
  readonly cert: string
  readonly key: string
  readonly clientCa?: string
}

/** How long a request may be over its time before node notices. */
const checkEveryMs = 1000

/** A plain or TLS server with every limit set. Throws RouterError CONFIG_UNREADABLE or CONFIG_INVALID for its certificate. */
export function createListener(handler: RequestListener, limits: ListenerLimits, tls: TlsFiles | null): Server {
  const options: ServerOptions = {
    maxHeaderSize: limits.headerBytes,
    headersTimeout: Math.min(limits.headersMs, limits.requestMs),
    requestTimeout: limits.requestMs,
    keepAliveTimeout: limits.keepAliveMs,
    connectionsCheckingInterval: checkEveryMs,
    // Ours to refuse, in our own form.
    requireHostHeader: false,
  }
  const server =
    tls === null
      ? createServer(options, handler)
      : createTlsServer({ ...options, ...tlsOptions(tls), handshakeTimeout: limits.headersMs }, handler)
  server.maxConnections = limits.connections
  // Node forgets what is over its own limit without a word; one more than ours shows that there was too much.
  server.maxHeadersCount = limits.headers + 1
  server.on('connect', refuseConnect)
  // Other expectations are refused with the rest of the head.
  server.on('checkExpectation', (request, response) => server.emit('request', request, response))
  server.on('checkContinue', (request, response) => {
    awaited.add(response)
    server.emit('request', request, response)
  })
  return server
}

/** Answers whose clients wait for `100 Continue` before they send their body. */
const awaited = new WeakSet<ServerResponse>()

/** Tells a client that waits with its body that it may send it. */
export function continueIfAwaited(response: ServerResponse): void {
  if (awaited.delete(response)) response.writeContinue()
}

/**
 * Reads the files again; the answer uses them for new connections, while running ones keep what they have.
 * Throws RouterError CONFIG_UNREADABLE or CONFIG_INVALID.
 */
export function renewedCertificates(server: Server, tls: TlsFiles): () => void {
  const options = tlsOptions(tls)
  return () => {
    if (server instanceof TlsServer) server.setSecureContext(options)
  }
}

/** Throws RouterError CONFIG_UNREADABLE for a file that cannot be read, CONFIG_INVALID for one that holds something else. */
function tlsOptions({ cert, key, clientCa }: TlsFiles): TlsOptions {
  const options: TlsOptions = {
    cert: fileOf(cert, 'tls.cert'),
    key: fileOf(key, 'tls.key'),
    ...(clientCa === undefined
      ? {}
      : { ca: fileOf(clientCa, 'tls.clientCa'), requestCert: true, rejectUnauthorized: true }),
  }
  try {
    createSecureContext(options)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new RouterError('CONFIG_INVALID', `tls: ${cert} and ${key} make no certificate: ${reason}`, { cause })
  }
  return options
}

function fileOf(path: string, option: string): Buffer {
  try {
    return readFileSync(path)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new RouterError('CONFIG_UNREADABLE', `${option}: cannot read the file: ${reason}`, { cause })
  }
}
