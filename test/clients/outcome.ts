import assert from 'node:assert/strict'

/** What a client made of one answer, in terms that every client and language has. */
export interface Outcome {
  /** Null where the client took the answer for a good one. */
  readonly error: Failure | null
  /** Text of the answer, or of as much of it as came. */
  readonly text: string
  /** Of a good answer, where the client shows it. */
  readonly requestId: string | null
  readonly durationMs: number
}

/** An error as the client raises it. */
export interface Failure {
  readonly kind: string
  readonly status: number | null
  readonly message: string
  readonly type: string | null
  /** A number as its digits: some clients make a text of it. */
  readonly code: string | null
  readonly param: string | null
  readonly requestId: string | null
}

/** What is to come of a case. What is left out may be anything. */
export interface Expected {
  /** Times that the engine was asked; 1 unless said, null where it depends on the machine. */
  readonly tries?: number | null
  /** Left out: the answer is a good one. */
  readonly error?: Partial<Omit<Failure, 'message'>> & {
    /** Part of the client's message. */
    readonly message?: string
  }
  readonly text?: string
  /** Whether the client must show the request id of a good answer. */
  readonly identified?: boolean
  readonly atLeastMs?: number
}

export interface CheckOptions {
  /** What the case was sent with as `x-request-id`. */
  readonly requestId: string
  readonly tries: number
}

export function check(outcome: Outcome | undefined, expected: Expected, options: CheckOptions): void {
  assert.ok(outcome !== undefined, 'the probe told nothing')
  const { error } = outcome
  const told = error === null ? 'a good answer' : `${error.kind} ${error.status}: ${error.message}`
  if (expected.error === undefined) {
    assert.equal(error, null, told)
  } else {
    assert.ok(error !== null, `no error was raised: ${JSON.stringify(outcome.text)}`)
    const { message, kind, ...fields } = expected.error
    if (message !== undefined) assert.ok(error.message.includes(message), `"${error.message}" lacks "${message}"`)
    assert.ok(!error.message.includes('<'), `"${error.message}" holds a page`)
    // Empty where a client has one class for all.
    if (kind !== undefined && error.kind !== '') assert.equal(error.kind, kind)
    for (const [name, value] of Object.entries(fields)) assert.equal(error[name as keyof Failure], value, name)
  }
  if (expected.text !== undefined) assert.equal(outcome.text, expected.text, told)
  const { tries = 1 } = expected
  if (tries !== null) assert.equal(options.tries, tries, `tries (${told})`)
  const { atLeastMs = 0 } = expected
  assert.ok(outcome.durationMs >= atLeastMs, `took ${outcome.durationMs} ms, expected at least ${atLeastMs}`)
  const requestId = error === null ? outcome.requestId : error.requestId
  // Errors of an answer carry it in every client; those of a stream, which have no status, in some.
  const shown = expected.identified === true || (error !== null && error.status !== null)
  if (shown || requestId !== null) assert.equal(requestId, options.requestId, 'request id')
}
