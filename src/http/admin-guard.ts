import { hash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { RouterError } from '../errors.ts'

export interface AdminGuardOptions {
  /** `sha256:` and the digest of the operators' key; null: none is asked for. Read anew each time: a reload may change it. */
  readonly keyHash: string | null
  /** Clients have shown a certificate, or else are on this machine. */
  readonly mutualTls: boolean
}

/** Probes of an orchestrator carry no key, and these two tell nothing. */
const open: ReadonlySet<string> = new Set(['/healthz', '/readyz'])

/**
 * Who may use the admin port: with a key, whoever sends it; on loopback without one, programs of this machine. A web page
 * in a browser of this machine is none of them: it can send requests there too, under a name that resolves to loopback
 * (DNS rebinding) or across origins, so that the host must be a loopback name and changes must not come from elsewhere.
 */
export function adminGuard(options: AdminGuardOptions): (request: IncomingMessage) => RouterError | undefined {
  return (request) => {
    const path = request.url?.split('?', 1)[0] ?? ''
    if (open.has(path)) return undefined
    const { keyHash } = options
    if (keyHash !== null && !holdsKey(request, keyHash)) {
      return new RouterError('AUTHENTICATION_FAILED', 'The admin port needs its key, as "authorization: Bearer KEY"')
    }
    const host = request.headers.host ?? ''
    if (keyHash === null && !options.mutualTls && !isLoopbackName(host)) {
      return new RouterError(
        'ORIGIN_REFUSED',
        'Without admin.keyHash the admin port answers to localhost, 127.0.0.1 and [::1] only',
      )
    }
    const { origin } = request.headers
    const changes = request.method !== 'GET' && request.method !== 'HEAD'
    if (changes && origin !== undefined && originHost(origin) !== host.toLowerCase()) {
      return new RouterError('ORIGIN_REFUSED', 'A page of another origin may not change anything here')
    }
    return undefined
  }
}

function holdsKey(request: IncomingMessage, keyHash: string): boolean {
  const digest = Buffer.from(keyHash.slice('sha256:'.length), 'hex')
  const { authorization = '' } = request.headers
  const key = /^bearer /i.test(authorization) ? authorization.slice('bearer '.length).trim() : ''
  // Digests are compared, so that the time tells nothing about the key, its length included.
  return timingSafeEqual(hash('sha256', key, 'buffer'), digest) && key !== ''
}

function isLoopbackName(host: string): boolean {
  const name = host.replace(/:\d+$/, '').toLowerCase()
  return name === 'localhost' || name === '[::1]' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(name)
}

function originHost(origin: string): string | null {
  return URL.canParse(origin) ? new URL(origin).host : null
}
