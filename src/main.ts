import { randomBytes } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import { ApiKeys } from './admission/api-keys.ts'
import type { Config } from './config/schema.ts'
import { adminGuard } from './http/admin-guard.ts'
import { addAdminRoutes } from './http/admin.ts'
import { BodyBudget } from './http/bodies.ts'
import { TrustedProxies } from './http/forwarded.ts'
import { addPublicRoutes } from './http/public.ts'
import { createServer } from './http/server.ts'
import { createKeyMaker } from './kv/keys.ts'
import { createAdmission } from './main/admission.ts'
import { adminViews } from './main/admin-views.ts'
import { EventsWiring } from './main/events-wiring.ts'
import { FleetKeeper } from './main/keeper.ts'
import { workerCommands } from './main/worker-commands.ts'
import { drain, listen, timeout } from './main/listening.ts'
import { loadPlugins, profileChoice } from './main/policies.ts'
import { PoolRoom } from './main/pool-room.ts'
import { createOutliers } from './main/outliers.ts'
import { probeWorker } from './main/probe.ts'
import { FlatMap } from './map/flat-map.ts'
import { Pipeline } from './pipeline.ts'
import { Forwarder } from './proxy/forward.ts'
import { createProfile } from './routing/catalogue.ts'
import { RetryBudget } from './proxy/retry-budget.ts'
import { DecisionLog } from './routing/decisions.ts'
import type { Profile } from './routing/profile.ts'
import { createLog, type Log } from './telemetry/log.ts'
import { createMetrics } from './telemetry/metrics.ts'
import { createPromptService } from './tokenize/service.ts'
import { checkWorkerTls, WorkerConnections } from './workers/connect.ts'
import { createEngineHttp } from './workers/engine-http.ts'
import { Fleet } from './workers/fleet.ts'
import { newPool, Pools } from './workers/pool.ts'

export { checkPolicies } from './main/policies.ts'

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
  const connections = new WorkerConnections()
  const engineHttp = createEngineHttp(connections)
  const forwarder = new Forwarder(
    {
      ...config.timeouts,
      heldEventBytes: config.limits.heldEventBytes,
      heldAnswerBytes: config.limits.heldAnswerBytes,
      answerHeaderBytes: config.limits.answerHeaderBytes,
      connectionsPerWorker: config.limits.connectionsPerWorker,
    },
    clock,
    connections,
  )
  const random = parts.random ?? Math.random
  const outliers = createOutliers({ limits: config.outliers, clock, random, metrics, log })
  const apiKeys = new ApiKeys(config.apiKeys)
  const decisions = new DecisionLog(config.decisions.kept, config.limits.workers)
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

  const { requestsPerWorker = null, ...saturation } = config.admission.saturation
  const room = new PoolRoom({
    pools,
    fleet,
    clock,
    limits: { ...saturation, requestsPerWorker, staleMs: config.load.staleMs },
  })
  const { admission, stop: stopAdmission } = createAdmission({
    settings: config.admission,
    room,
    pools,
    clock,
    metrics,
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
    onEndpoint: ({ url, tls }, pool) =>
      connections.use(url, tls ?? config.pools.find(({ model }) => model === pool?.model)?.tls ?? null),
    onWorker: (worker) => events.addWorker(worker),
    drainMs: config.shutdown.drainWorkerMs,
    onCut: (worker) => forwarder.cut(worker),
    onWorkerGone: (worker) => {
      events.removeWorker(worker)
      if (![...fleet.workers()].some(({ origin }) => origin === worker.origin)) forwarder.forget(worker.origin)
      metrics.forgetWorker(worker.id, () => fleet.get(worker.id) === undefined)
    },
    onLoad: (worker) => room.read(worker),
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
    admission,
    hasRoomOn: (worker) => room.hasRoomOn(worker),
    outliers,
    retries: new RetryBudget(config.retries),
    decisions,
    explained: new DecisionLog(1, config.limits.workers),
    metrics,
    log,
    clock,
    wallClock: Date.now,
    staleLoadMs: config.load.staleMs,
    responsesKept: config.limits.responsesKept,
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
  const publicApp = createServer({ limits, timeouts, tls: config.listen.tls ?? null, bodies, log, onRefused })
  addPublicRoutes(publicApp, {
    pipeline,
    pools,
    prompts,
    exposure: config.expose,
    proxies: new TrustedProxies(config.forwarded.trustedProxies),
    authenticate: (headers) => apiKeys.authenticate(headers),
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
  const adminApp = createServer({
    limits,
    timeouts,
    tls: config.admin.tls ?? null,
    bodies: adminBodies,
    log,
    onRefused,
    admit: adminGuard({
      keyHash: config.admin.keyHash ?? null,
      mutualTls: config.admin.tls?.clientCa !== undefined,
    }),
  })
  const views = adminViews({ fleet, map, keeper, metrics, prompts })
  addAdminRoutes(adminApp, {
    pipeline,
    readiness,
    decisions,
    ...views,
    fleet: workerCommands({ keeper, pools, view: views.workerView }),
  })

  const stopAll = async (): Promise<void> => {
    stopAdmission()
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
      const formed = newPool(pool.model)
      formed.aliases = pool.aliases ?? []
      for (const adapter of pool.adapters ?? []) formed.adapters.add(adapter)
      newProfile(pool.model)
      for (const tls of [pool, ...pool.workers].map((given) => given.tls)) checkWorkerTls(tls ?? {})
      if (pool.tokenizer !== undefined) {
        await prompts.add(pool.model, {
          path: pool.tokenizer,
          ...(pool.chatTemplate === undefined ? {} : { chatTemplate: pool.chatTemplate }),
        })
      }
      pools.add(formed)
      keeper.reconcile('config', formed, pool.workers)
    }
    if (config.workerUrls !== undefined) {
      if (config.modelPath !== undefined) await prompts.check({ path: config.modelPath })
      keeper.reconcile(
        'config',
        null,
        config.workerUrls.map((url) => ({ url })),
      )
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
        admission.close()
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
