import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

const answer = JSON.stringify({
  id: 'completion',
  object: 'text_completion',
  model: 'model',
  choices: [{ index: 0, text: 'a', finish_reason: 'stop' }],
  usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 },
})

/** Engines that keep every request until they are told to answer it, so that a test knows who has how many in flight. */
export class HeldEngines {
  readonly urls: readonly string[]
  readonly #servers: readonly Server[]
  readonly #held = new Map<string, ServerResponse>()
  readonly #tokens: readonly number[]
  #arrived: (engine: number) => void = () => undefined
  /** How often each has told what it holds. */
  readonly told: number[]

  private constructor(servers: readonly Server[], tokens: readonly number[]) {
    this.#servers = servers
    this.#tokens = tokens
    this.told = servers.map(() => 0)
    this.urls = servers.map((server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    for (const [engine, server] of servers.entries())
      server.on('request', (request, response) => void this.#take(engine, request, response))
  }

  /** @param tokens what each says that it holds in its KV cache; none: they do not tell */
  static async start(count: number, tokens: readonly number[] = []): Promise<HeldEngines> {
    const servers = Array.from({ length: count }, () => createServer())
    await Promise.all(
      servers.map((server) => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()))),
    )
    return new HeldEngines(servers, tokens)
  }

  /** The engine at which the next completion arrives. */
  nextArrival(): Promise<number> {
    return new Promise((resolve) => (this.#arrived = resolve))
  }

  /** Answers the request that named itself so. */
  finish(name: string): void {
    this.#held.get(name)?.setHeader('content-type', 'application/json').end(answer)
    this.#held.delete(name)
  }

  close(): void {
    for (const server of this.#servers) {
      server.close()
      server.closeAllConnections()
    }
  }

  async #take(engine: number, request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = ''
    for await (const chunk of request) body += String(chunk)
    if (request.method !== 'POST') {
      const tokens = this.#tokens[engine]
      if (request.url === '/get_load' && tokens !== undefined) {
        this.told[engine] = (this.told[engine] ?? 0) + 1
        response.end(JSON.stringify([{ dp_rank: 0, num_reqs: 0, num_waiting_reqs: 0, num_tokens: tokens }]))
        return
      }
      // Healthy; what sglang-router asks beyond that it can do without.
      response.statusCode = request.url?.startsWith('/health') === true ? 200 : 404
      response.end('{}')
      return
    }
    const { user } = JSON.parse(body) as { user: string }
    this.#held.set(user, response)
    this.#arrived(engine)
  }
}
