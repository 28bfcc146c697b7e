import type { Protocol, UpstreamError } from './protocol.ts'

/**
 * A worker's error answer in the client's form: null where its bytes have that form already. Engines answer errors in four
 * forms (OpenAI's, the flat one, FastAPI's `detail`, a bare text), proxies in front of them in HTML; SDKs lose the message of
 * most of them.
 */
export function rewrittenError(protocol: Protocol, status: number, body: Buffer, whole: boolean): string | null {
  const parsed = whole ? jsonObject(body) : null
  if (parsed !== null && protocol.hasErrorForm(parsed)) return null
  return protocol.upstreamErrorBody(
    parsed === null ? nameless(status) : { ...nameless(status), ...nested(parsed), ...flat(parsed), ...detail(parsed) },
  )
}

/** The error that a 200 carries in its body, as some engines answer; null for any other body. */
export function statusOfErrorBody(body: Buffer): number | null {
  const parsed = jsonObject(body)
  if (parsed === null || parsed['choices'] !== undefined) return null
  const error = parsed['object'] === 'error' ? parsed : parsed['error']
  if (typeof error !== 'object' || error === null) return null
  const { code } = error as Record<string, unknown>
  return typeof code === 'number' && code >= 400 && code <= 599 ? code : 502
}

const nameless = (status: number): UpstreamError => ({
  status,
  message: `The worker answered with status ${status}`,
  param: null,
  type: null,
})

/** `{"error": {message, type?, param?}}` or `{"error": "text"}`. */
function nested({ error }: Readonly<Record<string, unknown>>): Partial<UpstreamError> {
  if (typeof error === 'string' && error !== '') return { message: error }
  return typeof error === 'object' && error !== null ? fields(error as Record<string, unknown>) : {}
}

/** SGLang's `{"object": "error", "message", "type", "param", "code"}`. */
function flat(body: Readonly<Record<string, unknown>>): Partial<UpstreamError> {
  return body['error'] === undefined ? fields(body) : {}
}

function fields({ message, type, param }: Readonly<Record<string, unknown>>): Partial<UpstreamError> {
  return {
    ...(typeof message === 'string' && message !== '' ? { message } : {}),
    ...(typeof type === 'string' && type !== 'error' ? { type } : {}),
    ...(typeof param === 'string' ? { param } : {}),
  }
}

/** FastAPI's `{"detail": "text"}` or `{"detail": [{loc, msg, …}]}`; the latter's `input` repeats the prompt and is left out. */
function detail({ detail: given }: Readonly<Record<string, unknown>>): Partial<UpstreamError> {
  if (typeof given === 'string') return { message: given }
  if (!Array.isArray(given)) return {}
  const faults = given.flatMap((fault: unknown) => {
    const { loc, msg } = (fault ?? {}) as Record<string, unknown>
    if (typeof msg !== 'string') return []
    const place = Array.isArray(loc) ? loc.filter((step) => step !== 'body').join('.') : ''
    return [{ place, text: place === '' ? msg : `${place}: ${msg}` }]
  })
  const [first] = faults
  if (first === undefined) return {}
  return {
    message: faults.map(({ text }) => text).join('; '),
    ...(first.place === '' ? {} : { param: first.place }),
  }
}

function jsonObject(body: Buffer): Readonly<Record<string, unknown>> | null {
  try {
    const parsed: unknown = JSON.parse(body.toString('utf8'))
    return typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)
      ? (parsed as Record<string, unknown>)
      : null
  } catch {
    return null
  }
}
