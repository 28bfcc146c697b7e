import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { cameByProxy } from './forwarded.ts'

/** Who sees `x-warmroute-*` and the explain header (decision 24). */
export type Exposure = 'loopback' | 'keys' | 'all'

/** Random for each process, so that ids of replicas and restarts differ; a count tells its requests apart. */
const idPrefix = randomBytes(10).toString('hex')
let issuedIds = 0

/** The client's request id where it is a sane one, else a new one. */
export function requestIdOf(request: IncomingMessage): string {
  const given = request.headers['x-request-id']
  return typeof given === 'string' && /^[A-Za-z0-9._-]{1,128}$/.test(given)
    ? given
    : `${idPrefix}-${(issuedIds++).toString(16).padStart(8, '0')}`
}

/** @param hasKey whether the client sent a valid API key */
export function isTrusted(request: IncomingMessage, exposure: Exposure, hasKey: boolean): boolean {
  switch (exposure) {
    case 'all':
      return true
    case 'loopback': {
      const address = request.socket.remoteAddress ?? ''
      const local = address === '::1' || address.startsWith('127.') || address.startsWith('::ffff:127.')
      // A proxy on this machine stands for clients that are elsewhere.
      return local && !cameByProxy(request)
    }
    case 'keys':
      return hasKey
    default:
      return exposure satisfies never
  }
}

/** A header that must be a single short text, else null. */
export function shortHeader(request: IncomingMessage, name: string): string | null {
  const value = request.headers[name]
  return typeof value === 'string' && value !== '' && value.length <= 256 ? value : null
}
