/**
 * Which headers go where (docs/headers.md). Requests: everything but what belongs to the client's connection, what the
 * router sets itself, and what engines would obey from anyone. Answers: everything but what belongs to the worker's
 * connection.
 */
const droppedFromRequest = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'expect',
  'host',
  'content-length',
  'proxy-authorization',
  'accept-encoding',
  'x-request-id',
  'x-data-parallel-rank',
  'x-body-compressed',
  'x-smg-routing-key',
  'forwarded',
  'x-real-ip',
])
const droppedFromAnswer = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'transfer-encoding',
  'upgrade',
  'trailer',
  'x-request-id',
])

export interface RequestHeaderOptions {
  readonly requestId: string
  readonly rank: number | null
  /** The worker's own headers, lower-case; they replace the client's of the same name. */
  readonly worker: Readonly<Record<string, string>>
  /** Where the request came from, as a flat list, in place of whatever the client said about it. */
  readonly forwarded: readonly string[]
  /** The client's key was for the router, and engines have no business with it. */
  readonly withoutKey: boolean
}

/** Headers for the worker as a flat list, from the client's raw list. */
export function requestHeaders(raw: readonly string[], options: RequestHeaderOptions): string[] {
  const headers: string[] = []
  const named = connectionNamed(raw)
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = (raw[i] as string).toLowerCase()
    if (droppedFromRequest.has(name) || (name.startsWith('x-') && hasDroppedPrefix(name))) continue
    if (options.withoutKey && (name === 'authorization' || name === 'x-api-key')) continue
    if (options.worker[name] !== undefined || (named?.includes(name) ?? false)) continue
    headers.push(name, raw[i + 1] as string)
  }
  headers.push('accept-encoding', 'identity', 'x-request-id', options.requestId)
  headers.push(...options.forwarded)
  if (options.rank !== null) headers.push('x-data-parallel-rank', String(options.rank))
  for (const [name, value] of Object.entries(options.worker)) headers.push(name, value)
  return headers
}

function hasDroppedPrefix(name: string): boolean {
  return name.startsWith('x-override-') || name.startsWith('x-warmroute-') || name.startsWith('x-forwarded-')
}

/**
 * Headers for the client as a flat list: those of the worker's raw list, then those that the router adds. What the router says
 * itself no worker says in its name.
 */
export function answerHeaders(raw: readonly (string | Buffer)[], added: readonly string[]): string[] {
  const headers: string[] = []
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = textOf(raw[i])
    const lower = name.toLowerCase()
    if (droppedFromAnswer.has(lower) || lower.startsWith('x-warmroute-') || isNamed(added, lower)) continue
    headers.push(name, textOf(raw[i + 1]))
  }
  headers.push(...added)
  return headers
}

function isNamed(headers: readonly string[], name: string): boolean {
  for (let i = 0; i < headers.length; i += 2) if (headers[i] === name) return true
  return false
}

/** Header names that the client's `connection` header declares as belonging to that connection (RFC 9110, 7.6.1). */
function connectionNamed(raw: readonly string[]): string[] | null {
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if ((raw[i] as string).toLowerCase() !== 'connection') continue
    const value = (raw[i + 1] as string).toLowerCase()
    if (value === 'keep-alive' || value === 'close') return null
    return value.split(',').map((word) => word.trim())
  }
  return null
}

function textOf(value: string | Buffer | undefined): string {
  return typeof value === 'string' ? value : (value?.toString('latin1') ?? '')
}
