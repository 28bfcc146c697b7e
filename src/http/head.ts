import type { IncomingMessage } from 'node:http'
import { RouterError } from '../errors.ts'
import { bodyTooLarge } from './bodies.ts'

export interface HeadLimits {
  readonly bodyBytes: number
  readonly headers: number
}

/**
 * Headers that must come once: of two, proxies and engines before and behind us would each believe another one. Node
 * itself refuses a second content-length, and keeps the first of the others in silence while both would be forwarded.
 */
const single: ReadonlySet<string> = new Set(['host', 'content-type', 'authorization', 'x-api-key'])
const singleLengths: ReadonlySet<number> = new Set([...single].map((name) => name.length))

/**
 * What makes a request refused by its head alone, before a byte of its body is read; undefined if nothing does. Also what
 * node takes although RFC 9112 (3.2) asks for a 400: two hosts, and one in the request line.
 */
export function headFault(request: IncomingMessage, limits: HeadLimits): RouterError | undefined {
  const { rawHeaders, url } = request
  if (rawHeaders.length > 2 * limits.headers) {
    return new RouterError('HEADERS_TOO_LARGE', `The request has more than ${limits.headers} headers (limits.headers)`)
  }
  const repeated = repeatedHeader(rawHeaders)
  if (repeated !== null) return new RouterError('HEADER_INVALID', `The request has the header "${repeated}" twice`)
  if (request.headers.host === undefined && request.httpVersion !== '1.0')
    return new RouterError('HEADER_INVALID', 'The request names no host')
  if (url?.startsWith('/') !== true)
    return new RouterError('HEADER_INVALID', 'The request line must hold a path, not a whole URL')
  const { expect, 'content-encoding': encoding } = request.headers
  if (expect !== undefined && expect.toLowerCase() !== '100-continue')
    return new RouterError('HEADER_INVALID', 'The request expects something other than 100-continue')
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity') {
    return new RouterError(
      'CONTENT_ENCODING_UNSUPPORTED',
      `Content-encoding "${encoding.slice(0, 40)}" is not supported; send the body uncompressed`,
    )
  }
  const lengthBytes = request.headers['content-length']
  if (lengthBytes !== undefined && Number(lengthBytes) > limits.bodyBytes) return bodyTooLarge()
  return undefined
}

function repeatedHeader(rawHeaders: readonly string[]): string | null {
  const met: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const given = rawHeaders[i] as string
    if (!singleLengths.has(given.length)) continue
    const name = given.toLowerCase()
    if (!single.has(name)) continue
    if (met.includes(name)) return name
    met.push(name)
  }
  return null
}

/** Whether more of the request's body may come. */
export function bodyPending(request: IncomingMessage): boolean {
  if (request.complete) return false
  const { 'content-length': length, 'transfer-encoding': encoding } = request.headers
  return encoding !== undefined || (length !== undefined && Number(length) > 0)
}
