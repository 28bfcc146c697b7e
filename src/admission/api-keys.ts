import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import { RouterError } from '../errors.ts'
import { anonymous, type Caller } from './caller.ts'

export interface ApiKeyConfig {
  readonly id: string
  /** `sha256:` and the hexadecimal digest of the key. */
  readonly hash: string
  readonly models?: readonly string[]
  readonly requestsPerMinute?: number
  readonly tokensPerMinute?: number
  readonly concurrency?: number
  readonly priority?: number
  readonly weight?: number
}

/** The headers in which SDKs send a key, as node gives them. */
export interface KeyHeaders {
  readonly authorization?: string | undefined
  readonly 'x-api-key'?: string | readonly string[] | undefined
}

interface Known {
  readonly digest: Buffer
  readonly caller: Caller
}

const hashPrefix = 'sha256:'
const digestBytes = 32

/** What the config holds of a key. Keys are long and random, so that one round of SHA-256 is enough. */
export function hashOfKey(key: string): string {
  return hashPrefix + hash('sha256', key)
}

/**
 * The API keys of clients, by the hashes that the config holds. A digest is looked up by a second hash, keyed with a secret
 * that only this process knows, then compared whole in constant time: neither step's duration tells how near a guess came.
 *
 * The keyed hash is SHA-256(secret ‖ digest). Both parts have a fixed length and the result never leaves the process, so
 * that nothing can be appended, and HMAC's second pass would add nothing; node's Hmac objects take 8 µs each (measured).
 */
export class ApiKeys {
  /** The secret, then the digest that is looked up; written over with every call. */
  readonly #keyed = Buffer.concat([randomBytes(digestBytes), Buffer.alloc(digestBytes)])
  readonly #asked = this.#keyed.subarray(digestBytes)
  /** Compared with where no key is known, so that the answer takes as long. */
  readonly #nobody: Known = { digest: randomBytes(digestBytes), caller: anonymous }
  #known: ReadonlyMap<string, Known> = new Map()

  constructor(given: readonly ApiKeyConfig[]) {
    this.replace(given)
  }

  /** Whether clients need a key at all. */
  get required(): boolean {
    return this.#known.size > 0
  }

  /** Takes another list of keys: those that are not on it are refused from now on. */
  replace(given: readonly ApiKeyConfig[]): void {
    this.#known = new Map(
      given.map((key) => {
        const name = this.#name(key.hash.slice(hashPrefix.length))
        return [name, { digest: Buffer.from(this.#asked), caller: callerOf(key) }]
      }),
    )
  }

  /**
   * Who sends these headers: the owner of the Bearer token, else of `x-api-key`; everyone is `anonymous` where no keys are
   * configured. Throws RouterError AUTHENTICATION_FAILED, which does not tell a missing key from a wrong one.
   */
  authenticate(headers: KeyHeaders): Caller {
    if (this.#known.size === 0) return anonymous
    const key = keyIn(headers)
    const known = this.#known.get(this.#name(hash('sha256', key)))
    const same = timingSafeEqual((known ?? this.#nobody).digest, this.#asked)
    if (known === undefined || !same || key === '') {
      throw new RouterError(
        'AUTHENTICATION_FAILED',
        'A valid API key is needed, as "authorization: Bearer KEY" or "x-api-key: KEY"',
      )
    }
    return known.caller
  }

  /** Leaves the digest in `#asked`. */
  #name(digest: string): string {
    this.#asked.write(digest, 'hex')
    return hash('sha256', this.#keyed)
  }
}

/** Empty where no key was sent. */
function keyIn(headers: KeyHeaders): string {
  const { authorization } = headers
  if (authorization !== undefined && /^bearer /i.test(authorization)) return authorization.slice(7).trim()
  const key = headers['x-api-key']
  return typeof key === 'string' ? key.trim() : ''
}

function callerOf(key: ApiKeyConfig): Caller {
  return {
    keyId: key.id,
    models: key.models === undefined ? null : new Set(key.models),
    priority: key.priority ?? anonymous.priority,
    weight: key.weight ?? anonymous.weight,
    limits: {
      requestsPerMinute: key.requestsPerMinute ?? null,
      tokensPerMinute: key.tokensPerMinute ?? null,
      concurrency: key.concurrency ?? null,
    },
  }
}
