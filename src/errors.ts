/**
 * Every error that Warmroute itself raises, with its stable code. `docs/errors.md` explains each; a test compares the two.
 *
 * Two sorts of fault exist: ours (a broken invariant: `assert`, crash) and theirs (network, bad input, a full queue: a
 * RouterError that says what to do about it).
 */
export const errorCodes = {
  // Start-up and configuration.
  CONFIG_INVALID: { status: 500, type: 'ConfigError' },
  CONFIG_UNREADABLE: { status: 500, type: 'ConfigError' },
  TOKENIZER_UNREADABLE: { status: 500, type: 'ConfigError' },
  MODEL_CONFIG_INVALID: { status: 500, type: 'ConfigError' },
  PLUGIN_INVALID: { status: 500, type: 'ConfigError' },
  PORT_IN_USE: { status: 500, type: 'ConfigError' },
  REDIS_UNAVAILABLE: { status: 500, type: 'ConfigError' },
  // What a client sent.
  BODY_NOT_UTF8: { status: 400, type: 'BadRequestError' },
  BODY_NOT_JSON: { status: 400, type: 'BadRequestError' },
  BODY_TOO_DEEP: { status: 400, type: 'BadRequestError' },
  BODY_DUPLICATE_KEY: { status: 400, type: 'BadRequestError' },
  BODY_INVALID: { status: 400, type: 'BadRequestError' },
  BODY_TOO_LARGE: { status: 413, type: 'RequestTooLargeError' },
  CONTENT_ENCODING_UNSUPPORTED: { status: 415, type: 'BadRequestError' },
  HEADER_INVALID: { status: 400, type: 'BadRequestError' },
  ORIGIN_REFUSED: { status: 403, type: 'PermissionDeniedError' },
  HEADERS_TOO_LARGE: { status: 431, type: 'BadRequestError' },
  REQUEST_TIMEOUT: { status: 408, type: 'RequestTimeoutError' },
  TEMPLATE_REFUSED: { status: 400, type: 'BadRequestError' },
  AUTHENTICATION_FAILED: { status: 401, type: 'AuthenticationError' },
  MODEL_NOT_ALLOWED: { status: 403, type: 'PermissionDeniedError' },
  TOKEN_ID_INVALID: { status: 400, type: 'BadRequestError' },
  PROMPT_TOO_LONG: { status: 400, type: 'BadRequestError' },
  MODEL_NOT_FOUND: { status: 404, type: 'NotFoundError' },
  PATH_NOT_FOUND: { status: 404, type: 'NotFoundError' },
  RESPONSE_NOT_FOUND: { status: 404, type: 'NotFoundError' },
  RECORD_NOT_FOUND: { status: 404, type: 'NotFoundError' },
  RATE_LIMITED: { status: 429, type: 'RateLimitError' },
  WORKER_NOT_FOUND: { status: 404, type: 'NotFoundError' },
  WORKER_EXISTS: { status: 409, type: 'ConflictError' },
  WORKER_LEAVING: { status: 409, type: 'ConflictError' },
  // The fleet and the network.
  QUEUE_FULL: { status: 429, type: 'RateLimitError' },
  QUEUE_TIMEOUT: { status: 429, type: 'RateLimitError' },
  NO_WORKER: { status: 503, type: 'ServiceUnavailableError' },
  NO_SUITABLE_WORKER: { status: 503, type: 'ServiceUnavailableError' },
  NOT_READY: { status: 503, type: 'ServiceUnavailableError' },
  DRAINING: { status: 503, type: 'ServiceUnavailableError' },
  TOKENIZER_BUSY: { status: 503, type: 'ServiceUnavailableError' },
  BODIES_OVER_BUDGET: { status: 503, type: 'ServiceUnavailableError' },
  TOKENIZER_FAILED: { status: 500, type: 'InternalServerError' },
  UPSTREAM_UNREACHABLE: { status: 502, type: 'InternalServerError' },
  UPSTREAM_DIED: { status: 502, type: 'InternalServerError' },
  UPSTREAM_INVALID: { status: 502, type: 'InternalServerError' },
  UPSTREAM_TIMEOUT: { status: 504, type: 'InternalServerError' },
  INTERNAL: { status: 500, type: 'InternalServerError' },
  // Peers that speak a protocol wrongly.
  ZMTP_PROTOCOL: { status: 500, type: 'PeerError' },
  EVENT_MALFORMED: { status: 500, type: 'PeerError' },
  // What a replay was given.
  TRACE_INVALID: { status: 500, type: 'TraceError' },
  // What was kept of the map.
  SNAPSHOT_UNUSABLE: { status: 500, type: 'SnapshotError' },
} as const

export type ErrorCode = keyof typeof errorCodes

/** Where the status of an overload is configured, its type follows. */
export const overloadTypes = {
  429: 'RateLimitError',
  503: 'ServiceUnavailableError',
  529: 'OverloadedError',
} as const

export type OverloadStatus = keyof typeof overloadTypes

/** A fault that is not ours: carries a stable code, what happened, and what to do about it. */
export class RouterError extends Error {
  readonly code: ErrorCode
  /** The request field at fault, as OpenAI's `error.param`. */
  readonly param: string | null
  /** Seconds after which trying again makes sense; answered as `retry-after`. */
  readonly retryAfterSeconds: number | null
  /** Status in place of the code's own. */
  readonly overloadStatus: OverloadStatus | null

  constructor(
    code: ErrorCode,
    message: string,
    options: {
      param?: string | null
      retryAfterSeconds?: number
      overloadStatus?: OverloadStatus
      cause?: unknown
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'RouterError'
    this.code = code
    this.param = options.param ?? null
    this.retryAfterSeconds = options.retryAfterSeconds ?? null
    this.overloadStatus = options.overloadStatus ?? null
  }

  /** The HTTP status that a client gets for this error. */
  get status(): number {
    return this.overloadStatus ?? errorCodes[this.code].status
  }

  get type(): string {
    return this.overloadStatus === null ? errorCodes[this.code].type : overloadTypes[this.overloadStatus]
  }
}
