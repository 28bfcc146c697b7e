import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createTlsServer, type ServerOptions as TlsServerOptions } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'

export interface Received {
  readonly method: string
  readonly url: string
  readonly rawHeaders: readonly string[]
  readonly headers: IncomingMessage['headers']
  readonly body: Buffer
}

/** Answers one generation request; what it leaves open stays open. */
export type Script = (request: Received, response: ServerResponse) => void

/** An engine that answers health checks and otherwise does what the test says, byte for byte; keeps what it received. */
export interface ScriptedEngine {
  readonly url: string
  readonly received: Received[]
  /** Generation requests whose connection is open. */
  readonly open: () => number
  script: Script
  /** The model that it says it serves. */
  model: string
}

export async function scriptedEngine(
  t: Pick<TestContext, 'after'>,
  script: Script,
  model = 'demo',
  tls?: TlsServerOptions,
): Promise<ScriptedEngine> {
  let open = 0
  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const { method = '', url = '', rawHeaders, headers } = request
      if (method === 'GET') {
        const known = url === '/health' || url === '/v1/models'
        response.writeHead(known ? 200 : 404, { 'content-type': 'application/json' })
        response.end(
          JSON.stringify({
            object: 'list',
            data: [{ id: engine.model, object: 'model', parent: null, max_model_len: 4096 }],
          }),
        )
        return
      }
      if (url === '/tokenize') {
        response.writeHead(404).end()
        return
      }
      const received: Received = { method, url, rawHeaders, headers, body: Buffer.concat(chunks) }
      engine.received.push(received)
      open++
      response.once('close', () => open--)
      engine.script(received, response)
    })
  }
  const server = tls === undefined ? createServer(answer) : createTlsServer(tls, answer)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const engine: ScriptedEngine = {
    url: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${(server.address() as AddressInfo).port}`,
    received: [],
    open: () => open,
    script,
    model,
  }
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return engine
}
