import type { AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'
import type { FastifyInstance } from 'fastify'
import { BodyBudget } from '../../src/http/bodies.ts'
import { createServer, type ServerOptions } from '../../src/http/server.ts'
import { collectingLog, type LogLine } from './fleet.ts'

export interface Door {
  readonly app: FastifyInstance
  readonly url: string
  readonly bodies: BodyBudget
  readonly refused: readonly string[]
  readonly log: readonly LogLine[]
}

export interface DoorOptions {
  readonly limits?: Partial<ServerOptions['limits']> & { readonly bodiesBytes?: number }
  readonly timeouts?: Partial<ServerOptions['timeouts']>
  readonly tls?: ServerOptions['tls']
  /** Adds routes before the port opens; without it POST /echo answers the length of its body. */
  readonly routes?: (app: FastifyInstance) => void
}

/** A server of the front door with nothing behind it. */
export async function doorFor(t: TestContext, options: DoorOptions = {}): Promise<Door> {
  const { bodiesBytes = 64 * 1024 * 1024, ...limits } = options.limits ?? {}
  const bodies = new BodyBudget(bodiesBytes)
  const refused: string[] = []
  const log: LogLine[] = []
  const app = createServer({
    limits: { bodyBytes: 1024 * 1024, headerBytes: 16_384, headers: 100, connections: 1000, ...limits },
    timeouts: { headersMs: 10_000, requestMs: 60_000, keepAliveMs: 75_000, lingerMs: 1000, ...options.timeouts },
    tls: options.tls ?? null,
    bodies,
    log: collectingLog(log),
    onRefused: (reason) => refused.push(reason),
  })
  const routes =
    options.routes ??
    ((app: FastifyInstance) => {
      app.post('/echo', (request) => ({ bytes: (request.body as Buffer | undefined)?.length ?? 0 }))
    })
  routes(app)
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.after(async () => {
    app.server.closeAllConnections()
    await app.close()
  })
  const { port } = app.server.address() as AddressInfo
  const scheme = options.tls === undefined || options.tls === null ? 'http' : 'https'
  return { app, url: `${scheme}://127.0.0.1:${port}`, bodies, refused, log }
}
