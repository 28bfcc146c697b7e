import type { FastifyInstance } from 'fastify'
import { ApiKeys } from '../admission/api-keys.ts'
import type { Config } from '../config/schema.ts'
import { adminGuard } from '../http/admin-guard.ts'
import { addAdminRoutes, type AdminPorts } from '../http/admin.ts'
import { BodyBudget } from '../http/bodies.ts'
import { TrustedProxies } from '../http/forwarded.ts'
import { renewedCertificates } from '../http/listener.ts'
import { drain, listen } from '../http/listening.ts'
import { addPublicRoutes, type PublicPorts } from '../http/public.ts'
import { createServer, type ServerOptions } from '../http/server.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Readiness } from './readiness.ts'
import type { Change } from './reload.ts'

export interface DoorsOptions {
  /** What the router was started with. */
  readonly config: Config
  /** What runs now: a reload may have changed it. */
  readonly current: () => Config
  readonly readiness: Readiness
  readonly log: Log
  readonly metrics: Metrics
  /** What is behind the public port. */
  readonly served: Pick<PublicPorts, 'pipeline' | 'pools' | 'prompts'>
  /** What is behind the admin port. */
  readonly shown: Omit<AdminPorts, 'readiness'>
}

/** The router's two ports, and who may come in: the public one for clients, the admin one for operators. */
export class Doors {
  readonly #config: Config
  readonly #apiKeys: ApiKeys
  readonly #proxies: TrustedProxies
  readonly #public: FastifyInstance
  readonly #admin: FastifyInstance

  /** Throws RouterError CONFIG_UNREADABLE or CONFIG_INVALID for a certificate. */
  constructor(options: DoorsOptions) {
    const { config, log, metrics } = options
    this.#config = config
    this.#apiKeys = new ApiKeys(config.apiKeys)
    this.#proxies = new TrustedProxies(config.forwarded.trustedProxies)
    const bodies = new BodyBudget(config.limits.bodiesBytes)
    metrics.read('request_body_bytes', () => [[[], bodies.heldBytes]])
    const common = {
      ...{ limits: config.limits, timeouts: config.timeouts, log },
      onRefused: (reason: string): void => metrics.refusedAtDoor.add(1, reason),
    }
    this.#public = this.#publicDoor({ ...common, tls: config.listen.tls ?? null, bodies }, options)
    this.#admin = this.#adminDoor({ ...common, tls: config.admin.tls ?? null }, options)
  }

  /** Throws RouterError PORT_IN_USE. */
  async open(): Promise<{ readonly publicUrl: string; readonly adminUrl: string }> {
    const { listen: place, admin } = this.#config
    const publicUrl = await listen(this.#public, place.host, place.port, 'listen.port')
    const adminPort = admin.port ?? (place.port === 0 ? 0 : place.port + 1)
    const adminUrl = await listen(this.#admin, admin.host, adminPort, 'admin.port')
    return { publicUrl, adminUrl }
  }

  /** Keys and proxies as the config has them now, and certificates as their files do. Throws RouterError for one of those. */
  prepare(next: Config): Change {
    const doors = [
      { app: this.#public, tls: this.#config.listen.tls },
      { app: this.#admin, tls: this.#config.admin.tls },
    ]
    const renewals = doors.flatMap(({ app, tls }) => (tls === undefined ? [] : [renewedCertificates(app.server, tls)]))
    return () => {
      this.#apiKeys.replace(next.apiKeys)
      this.#proxies.replace(next.forwarded.trustedProxies)
      for (const renew of renewals) renew()
    }
  }

  /** Lets nobody in any more, and clients finish until the grace time is over. */
  async drain(graceMs: number): Promise<void> {
    await drain(this.#public, graceMs)
    await drain(this.#admin, 0)
  }

  async close(): Promise<void> {
    await Promise.all([this.#public.close(), this.#admin.close()])
  }

  #publicDoor(server: ServerOptions, { current, readiness, log, served }: DoorsOptions): FastifyInstance {
    const app = createServer(server)
    addPublicRoutes(app, {
      ...served,
      get exposure() {
        return current().expose
      },
      proxies: this.#proxies,
      authenticate: (headers) => this.#apiKeys.authenticate(headers),
      ready: () => readiness.view().ready,
      draining: () => readiness.draining,
      onInternalError: (error, requestId) =>
        log.error(
          { requestId, error: error instanceof Error ? error.stack : String(error) },
          'a request failed inside the router',
        ),
    })
    return app
  }

  #adminDoor(
    server: Omit<ServerOptions, 'bodies'>,
    { config, current, readiness, shown }: DoorsOptions,
  ): FastifyInstance {
    const app = createServer({
      ...server,
      // A budget of its own: operators are let in also while clients fill theirs.
      bodies: new BodyBudget(config.limits.bodyBytes),
      admit: adminGuard({
        get keyHash() {
          // A key can be changed as the router runs; taking it away would open a port that others may reach.
          return current().admin.keyHash ?? config.admin.keyHash ?? null
        },
        mutualTls: config.admin.tls?.clientCa !== undefined,
      }),
    })
    addAdminRoutes(app, { ...shown, readiness: () => readiness.view() })
    return app
  }
}
