import type { ServerResponse } from 'node:http'

/** What an engine writes as answer number `tries` (from 1) to one request. */
export type Answer = (response: ServerResponse, tries: number) => void

export function json(status: number, body: unknown, headers: Readonly<Record<string, string>> = {}): Answer {
  return raw(status, JSON.stringify(body), { 'content-type': 'application/json', ...headers })
}

export function raw(status: number, body: string, headers: Readonly<Record<string, string>> = {}): Answer {
  return (response) => response.writeHead(status, headers).end(body)
}

/** The first answer to the first try, the second one to all further tries. */
export function first(answer: Answer, then: Answer): Answer {
  return (response, tries) => (tries === 1 ? answer : then)(response, tries)
}

/** How a stream goes on after its last event. */
export type StreamEnd = 'close' | 'destroy' | 'stayOpen'

export function stream(
  text: string,
  end: StreamEnd = 'close',
  options: { readonly bytesAtOnce?: number } = {},
): Answer {
  return (response) => {
    const bytes = Buffer.from(text)
    const step = options.bytesAtOnce ?? Math.max(1, bytes.length)
    let sent = 0
    response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
    response.flushHeaders()
    const next = (): void => {
      if (sent < bytes.length) response.write(bytes.subarray(sent, (sent += step)), () => setImmediate(next))
      else if (end === 'close') response.end()
      else if (end === 'destroy') response.destroy()
    }
    next()
  }
}

/** Server-sent events without names; a text is sent as it is, all else as JSON. */
export function data(...events: readonly unknown[]): string {
  return events.map((event) => `data: ${typeof event === 'string' ? event : JSON.stringify(event)}\n\n`).join('')
}

/** Server-sent events that are named by their `type`, as Anthropic and the Responses API have them. */
export function named(...events: readonly { readonly type: string }[]): string {
  return events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join('')
}
