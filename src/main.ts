import { randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { isAbsolute, join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { pathToFileURL } from 'node:url'
import type { FastifyInstance } from 'fastify'
import type { Config } from './config/schema.ts'
import { RouterError } from './errors.ts'
import { addAdminRoutes } from './http/admin.ts'
import { BodyBudget } from './http/bodies.ts'
import { addPublicRoutes } from './http/public.ts'
import { createServer } from './http/server.ts'
import { createKeyMaker } from './kv/keys.ts'
import { adminViews } from './main/admin-views.ts'
import { EventsWiring } from './main/events-wiring.ts'
import { FleetKeeper } from './main/keeper.ts'
import { probeWorker } from './main/probe.ts'
import { FlatMap } from './map/flat-map.ts'
import { Pipeline } from './pipeline.ts'
import { Forwarder } from './proxy/forward.ts'
import { createProfile, defaultProfile, type ProfileChoice } from './routing/catalogue.ts'
import { DecisionLog } from './routing/decisions.ts'
import type { PolicyPlugin } from './routing/policy.ts'
import type { Profile } from './routing/profile.ts'
import { createLog, type Log } from './telemetry/log.ts'
import { createMetrics } from './telemetry/metrics.ts'
import { createPromptService } from './tokenize/service.ts'
import { createEngineHttp } from './workers/engine-http.ts'
import { Fleet } from './workers/fleet.ts'
import { Pools, type Pool } from './workers/pool.ts'

export interface Router {
  readonly publicUrl: string
  readonly adminUrl: string
  /** Drains: readiness first, then running answers finish or reach the grace limit. */
  stop(): Promise<void>
}

export interface RouterParts {
  /** Given by tests and the quick start; else made from the config. */
  readonly log?: Log
  /** Uniform in [0, 1). */
  readonly random?: () => number
}

/** How long the first health checks may hold up readiness (decision 25). */
const firstChecksMs = 2000

/** Joins the rooms and starts serving. Throws RouterError for faults in the config or a port that is taken. */
export async function startRouter(config: Config, parts: RouterParts = {}): Promise<Router> {
  const ownLog = parts.log === undefined ? createLog(config.log.level) : null
  const log = parts.log ?? ownLog ?? createLog('silent')
  const clock = (): number => performance.now()
  const metrics = createMetrics()
  metrics.read('log_lines_dropped_total', () => [[[], ownLog?.dropped() ?? 0]])
  const more = await loadPlugins(config.plugins)

  const fleet = new Fleet(config.limits.workers)
  const pools = new Pools()
  const keys = await createKeyMaker(
    config.keys.secret === undefined ? randomBytes(32) : Buffer.from(config.keys.secret),
  )
  const map = new FlatMap({ budgetBytes: config.map.budgetBytes, maxWorkers: config.limits.workers })
  const prompts = createPromptService({
    ...(config.tokenizer.threads === undefined ? {} : { threads: config.tokenizer.threads }),
    cacheBytes: config.tokenizer.cacheBytes,
    queued: config.tokenizer.queued,
    log,
  })
  const engineHttp = createEngineHttp()
  const forwarder = new Forwarder(
    {
      ...config.timeouts,
      heldEventBytes: config.limits.heldEventBytes,
      connectionsPerWorker: config.limits.connectionsPerWorker,
    },
    clock,
  )
  const decisions = new DecisionLog(config.decisions.kept, config.limits.workers)
  const random = parts.random ?? Math.random
  const events = new EventsWiring({ map, keys, metrics, log, random })

  const newProfile = (model: string): Profile =>
    createProfile(profileChoice(config, model), {
      context: { clock, random },
      workers: config.limits.workers,
      fault: (plugin, error) => {
        metrics.policyErrors.add(1, plugin)
        log.error({ plugin, error: String(error) }, 'a policy plugin failed and was skipped')
      },
      more,
    })

  const keeper = new FleetKeeper({
    pools,
    fleet,
    http: engineHttp,
    health: config.health,
    load: config.load,
    probeIntervalMs: config.tokenizer.probeIntervalMs,
    clock,
    log,
    metrics,
    onPool: async (pool) => {
      if (config.modelPath !== undefined) await prompts.add(pool.model, { path: config.modelPath })
    },
    onWorker: (worker) => events.addWorker(worker),
    onWorkerGone: (worker) => {
      events.removeWorker(worker)
      forwarder.forget(worker.origin)
    },
    startEvents: (worker, place) => events.start(worker, place),
    probe: (worker) => probeWorker(worker, { prompts, http: engineHttp, log }),
  })

  const pipeline = new Pipeline({
    prompts,
    pools,
    keys,
    map,
    fleet,
    profileOf: (pool) => newProfile(pool.model),
    forwarder,
    decisions,
    explained: new DecisionLog(1, config.limits.workers),
    metrics,
    log,
    clock,
    wallClock: Date.now,
    staleLoadMs: config.load.staleMs,
    onUnreachable: (worker, refused) => keeper.reportUnreachable(worker, refused),
  })

  let started = false
  let draining = false
  const readiness = () => {
    const reasons = [
      ...(draining ? ['shutting down'] : []),
      ...(started ? [] : ['first health checks']),
      ...(config.readiness === 'anyWorker' && ![...fleet.workers()].some(({ standing }) => standing.state === 'healthy')
        ? ['no healthy worker']
        : []),
    ]
    return { ready: reasons.length === 0, reasons }
  }

  const { limits, timeouts } = config
  const bodies = new BodyBudget(limits.bodiesBytes)
  metrics.read('request_body_bytes', () => [[[], bodies.heldBytes]])
  const onRefused = (reason: string): void => metrics.refusedAtDoor.add(1, reason)
  const publicApp = createServer({ limits, timeouts, tls: null, bodies, log, onRefused })
  addPublicRoutes(publicApp, {
    pipeline,
    pools,
    prompts,
    exposure: config.expose,
    ready: () => readiness().ready,
    draining: () => draining,
    onInternalError: (error, requestId) =>
      log.error(
        { requestId, error: error instanceof Error ? error.stack : String(error) },
        'a request failed inside the router',
      ),
  })
  // A budget of its own: operators are let in also while clients fill theirs.
  const adminBodies = new BodyBudget(limits.bodyBytes)
  const adminApp = createServer({ limits, timeouts, tls: null, bodies: adminBodies, log, onRefused })
  const views = adminViews({ fleet, map, keeper, metrics, prompts })
  addAdminRoutes(adminApp, { pipeline, readiness, decisions, ...views })

  const stopAll = async (): Promise<void> => {
    await keeper.stop()
    await Promise.all([forwarder.close(), engineHttp.close(), events.close(), prompts.close()])
    pipeline.close()
    metrics.stop()
    ownLog?.flush()
  }
  try {
    // Also the profile of pools that are not formed yet: an unknown name is an error now, not at their first request.
    newProfile('')
    for (const pool of config.pools) {
      const formed: Pool = {
        model: pool.model,
        aliases: pool.aliases ?? [],
        adapters: new Set(pool.adapters ?? []),
        workers: [],
        createdSeconds: Math.floor(Date.now() / 1000),
        maxModelLength: null,
      }
      newProfile(pool.model)
      if (pool.tokenizer !== undefined) {
        await prompts.add(pool.model, {
          path: pool.tokenizer,
          ...(pool.chatTemplate === undefined ? {} : { chatTemplate: pool.chatTemplate }),
        })
      }
      pools.add(formed)
      keeper.addPool(formed, pool)
    }
    if (config.workerUrls !== undefined) {
      if (config.modelPath !== undefined) await prompts.check({ path: config.modelPath })
      for (const url of config.workerUrls) keeper.addUrl(url)
    }
    const publicUrl = await listen(publicApp, config.listen.host, config.listen.port, 'listen.port')
    const adminPort = config.admin.port ?? (config.listen.port === 0 ? 0 : config.listen.port + 1)
    const adminUrl = await listen(adminApp, config.admin.host, adminPort, 'admin.port')
    metrics.start()
    await Promise.race([keeper.firstChecks(), timeout(firstChecksMs)])
    started = true
    log.info({ publicUrl, adminUrl, pools: pools.list().map(({ model }) => model) }, 'serving')

    return {
      publicUrl,
      adminUrl,
      async stop() {
        draining = true
        log.info({ graceMs: config.shutdown.graceMs }, 'draining')
        await drain(publicApp, config.shutdown.graceMs)
        await drain(adminApp, 0)
        await stopAll()
      },
    }
  } catch (error) {
    await Promise.all([publicApp.close(), adminApp.close()])
    await stopAll()
    throw error
  }
}

/** Checks what the schema cannot: every profile and plugin of the config. Throws RouterError CONFIG_INVALID. */
export async function checkPolicies(config: Config): Promise<void> {
  const more = await loadPlugins(config.plugins)
  for (const model of config.pools.map((pool) => pool.model).concat('')) {
    createProfile(profileChoice(config, model), {
      context: { clock: () => 0, random: () => 0 },
      workers: 1,
      fault: () => undefined,
      more,
    })
  }
}

function profileChoice(config: Config, model: string): string | ProfileChoice {
  return config.pools.find((pool) => pool.model === model)?.profile ?? config.profile ?? defaultProfile
}

/** Every policy plugin that the modules export, by default or by name. */
async function loadPlugins(places: readonly string[]): Promise<PolicyPlugin[]> {
  const found: PolicyPlugin[] = []
  for (const place of places) {
    let module: Record<string, unknown>
    try {
      module = (await import(pluginUrl(place))) as Record<string, unknown>
    } catch (cause) {
      throw new RouterError(
        'PLUGIN_INVALID',
        `plugins: cannot load "${place}": ${cause instanceof Error ? cause.message : String(cause)}`,
        { cause },
      )
    }
    const exported = Object.values(module).flat().filter(isPolicyPlugin)
    if (exported.length === 0)
      throw new RouterError('PLUGIN_INVALID', `plugins: "${place}" exports no policy; export what definePolicy returns`)
    found.push(...exported)
  }
  return [...new Set(found)]
}

/** Packages are looked for beside Warmroute first, then from the working directory, as when Warmroute is installed globally. */
function pluginUrl(place: string): string {
  if (isAbsolute(place)) return pathToFileURL(place).href
  try {
    return import.meta.resolve(place)
  } catch {
    return pathToFileURL(createRequire(join(process.cwd(), 'package.json')).resolve(place)).href
  }
}

function isPolicyPlugin(value: unknown): value is PolicyPlugin {
  if (typeof value !== 'object' || value === null) return false
  const { kind, type, create } = value as Partial<PolicyPlugin>
  return (
    (kind === 'filter' || kind === 'scorer' || kind === 'picker') &&
    typeof type === 'string' &&
    typeof create === 'function'
  )
}

async function listen(app: FastifyInstance, host: string, port: number, option: string): Promise<string> {
  try {
    await app.listen({ host, port })
  } catch (cause) {
    const { code } = cause as { code?: string }
    if (code !== 'EADDRINUSE' && code !== 'EACCES' && code !== 'EADDRNOTAVAIL' && code !== 'ENOTFOUND') throw cause
    throw new RouterError('PORT_IN_USE', `Cannot listen on ${host}:${port} (${option}): ${code}; choose another one`, {
      cause,
    })
  }
  const address = app.server.address() as AddressInfo
  return `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`
}

/** Takes no new connection, lets running answers finish, and cuts what is left after the grace time. */
async function drain(app: FastifyInstance, graceMs: number): Promise<void> {
  const closed = app.close()
  // A connection whose answer ends from now on is kept alive by its client and would hold up the end.
  const idle = setInterval(() => app.server.closeIdleConnections(), 20)
  const cut = setTimeout(() => app.server.closeAllConnections(), graceMs)
  await closed
  clearInterval(idle)
  clearTimeout(cut)
}

function timeout(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref()
  })
}
