import { performance } from 'node:perf_hooks'
import type { Config } from './config/schema.ts'
import type { WorkerSlot } from './kv/batch.ts'
import { createKeyMaker } from './kv/keys.ts'
import { PromptKeys } from './kv/prompt-keys.ts'
import { createAdmission } from './main/admission.ts'
import { adminViews } from './main/admin-views.ts'
import { forwardLimits, saturationLimits } from './main/config-limits.ts'
import { ChunkStores, storeSlots } from './main/chunk-stores.ts'
import { configWatch, type ConfigSource } from './main/config-watch.ts'
import { Discoveries } from './main/discoveries.ts'
import { Doors } from './main/doors.ts'
import { EventsWiring } from './main/events-wiring.ts'
import { startLoadFeed } from './main/load-feeds.ts'
import { Lookups } from './main/lookups.ts'
import { FleetKeeper } from './main/keeper.ts'
import { workerCommands } from './main/worker-commands.ts'
import { PoolRoom } from './main/pool-room.ts'
import { createOutliers } from './main/outliers.ts'
import { DecisionFile } from './main/decision-file.ts'
import { LivePlugins } from './main/live-plugins.ts'
import { checkedPlugins, profileChoice, profileNotes, tierCredit } from './main/policies.ts'
import { pluginReports } from './main/plugin-reports.ts'
import { PoolSetup } from './main/pool-setup.ts'
import { Readiness } from './main/readiness.ts'
import { Replication } from './main/replication.ts'
import { keepsSnapshots, WarmStart } from './main/warm-start.ts'
import { deploymentSecret, fingerprintOf } from './main/secret.ts'
import { SharedSources } from './main/shared-sources.ts'
import { createSentPrompts } from './main/sent-prompts.ts'
import { Reloader, type Reloadable, type ReloadResult } from './main/reload.ts'
import { causeOfProbe, probeWorker } from './main/probe.ts'
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
import { TruthCheck } from './truth/check.ts'
import { WorkerConnections } from './workers/connect.ts'
import { createEngineHttp } from './workers/engine-http.ts'
import { Fleet } from './workers/fleet.ts'
import { FleetLoad } from './workers/fleet-load.ts'
import { Pools } from './workers/pool.ts'

export { checkPolicies, policyNotes } from './main/policies.ts'

export interface Router {
  readonly publicUrl: string
  readonly adminUrl: string
  /** Drains: readiness first, then running answers finish or reach the grace limit. */
  stop(): Promise<void>
  /** Takes over a changed config; whatever is wrong with it, the one that runs goes on. */
  reload(): Promise<ReloadResult>
}

export interface RouterParts {
  /** Absent where the config cannot change. */
  readonly source?: ConfigSource
  /** Given by tests and the quick start; else made from the config. */
  readonly log?: Log
  /** Uniform in [0, 1). */
  readonly random?: () => number
}

/** How long the first health checks may hold up readiness (decision 25). */
const firstChecksMs = 2000

/** Joins the rooms and starts serving. Throws RouterError for faults in the config or a port that is taken. */
export async function startRouter(config: Config, parts: RouterParts = {}): Promise<Router> {
  const watched = configWatch(parts.source, config.reload, () => void reloader.reload())
  /** The config that runs: a reload puts another one in its place. */
  const live = { config }
  const ownLog = parts.log === undefined ? createLog(config.log.level) : null
  const log = parts.log ?? ownLog ?? createLog('silent')
  const clock = (): number => performance.now()
  const metrics = createMetrics()
  metrics.read('log_lines_dropped_total', () => [[[], ownLog?.dropped() ?? 0]])
  const plugins = new LivePlugins({
    config,
    plugins: await checkedPlugins(config),
    log,
    changed: () => void reloader.reload(),
    renewed: () => {
      for (const pool of pools.list()) pipeline.renewProfile(pool)
    },
  })

  const fleet = new Fleet(config.limits.workers)
  const pools = new Pools()
  const secret = deploymentSecret(config, config.snapshot.file ?? null)
  if (secret.origin === 'shared')
    log.warn(
      {},
      'keys.secret is not set: it is made of what is known of Redis, so that who reads Redis may test guesses of prompts',
    )
  const fingerprint = fingerprintOf(secret.bytes)
  const keys = await createKeyMaker(secret.bytes)
  const mapSlots = config.limits.workers + storeSlots(config.limits.workers)
  const map = new FlatMap({ budgetBytes: config.map.budgetBytes, maxWorkers: mapSlots })
  const stores = new ChunkStores({
    map,
    firstSlot: config.limits.workers,
    limit: storeSlots(config.limits.workers),
    clock,
    poolOf: ({ pool: model }) => pools.list().find((pool) => pool.model === model),
  })
  const prompts = createPromptService({
    ...(config.tokenizer.threads === undefined ? {} : { threads: config.tokenizer.threads }),
    cacheBytes: config.tokenizer.cacheBytes,
    queued: config.tokenizer.queued,
    log,
  })
  const connections = new WorkerConnections()
  const engineHttp = createEngineHttp(connections)
  const forwarder = new Forwarder(forwardLimits(config), clock, connections)
  const random = parts.random ?? Math.random
  const replication: Replication | null =
    config.redis === undefined
      ? null
      : new Replication({
          ...{ redis: config.redis, secret: secret.bytes, fingerprint },
          ...{ slots: config.limits.workers, counters: fleet.counters, responsesKept: config.limits.responsesKept },
          ...{ clock, random, log, metrics },
          isAnnounced: (slot) => events.isAnnounced(slot),
          foreignPrompts: () => own.foreignPrompts,
          policyOf: (worker) => {
            const pool = pools.list().find(({ model }) => model === worker.pool)
            return pool === undefined ? null : pipeline.profileOf(pool)
          },
        })
  const fleetLoad = new FleetLoad({
    counters: fleet.counters,
    ...(replication === null ? {} : { replicas: replication.shared.shares }),
  })
  const outliers = createOutliers({ limits: config.outliers, clock, random, metrics, log })
  const { log: path, logBytes: fileBytes, logFiles: keptFiles } = config.decisions
  const decisionFile = path === undefined ? null : new DecisionFile({ path, fileBytes, keptFiles, metrics, log })
  const decisions = new DecisionLog(config.decisions.kept, config.limits.workers)
  const truth: TruthCheck = new TruthCheck({
    map,
    keys,
    slots: config.limits.workers,
    get agreement() {
      return live.config.agreement
    },
    get timing() {
      return live.config.truth
    },
    clock,
    wallClock: Date.now,
    log,
    metrics,
    heldBlocks: ({ slot }) => map.workerBlocks(slot as WorkerSlot).gpu,
    isPartial: (worker): boolean => events.isPartial(worker) || map.stats().evictions > 0,
  })
  const events: EventsWiring = new EventsWiring(
    {
      ...{ map, keys, metrics, log, random, truth, stores },
      http: engineHttp,
      polling: () => live.config.eventPolling,
      losses: () => live.config.eventLosses,
      streams: replication?.streams ?? null,
      plane: config.redis?.eventLog === true ? (replication?.plane ?? null) : null,
    },
    { waits: keepsSnapshots(config.snapshot, replication) },
  )

  const warmStart = keepsSnapshots(config.snapshot, replication)
    ? new WarmStart({ config: config.snapshot, fingerprint, replication, events, map, clock, log, metrics })
    : null

  const own = createSentPrompts({
    config: () => live.config,
    map,
    isAnnounced: (slot) => events.isAnnounced(slot),
    clock,
    ...(replication === null ? {} : { listener: replication.shared.prompts }),
  })

  const newProfile = (model: string): Profile => {
    for (const note of profileNotes(live.config, model)) log.info({ pool: model, note }, 'note on the profile')
    return createProfile(profileChoice(live.config, model), {
      context: { clock, wallClock: Date.now, random },
      workers: config.limits.workers,
      limits: live.config.pluginLimits,
      ...pluginReports(metrics, log, clock),
      more: plugins.list,
    })
  }

  const room = new PoolRoom({ pools, fleet, clock, limits: saturationLimits(config) })
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
    get health() {
      return live.config.health
    },
    get load() {
      return live.config.load
    },
    get probeIntervalMs() {
      return live.config.tokenizer.probeIntervalMs
    },
    get drainMs() {
      return live.config.shutdown.drainWorkerMs
    },
    clock,
    log,
    metrics,
    onPool: async (pool) => {
      const path = live.config.modelPath
      if (path !== undefined) await prompts.add(pool.model, { path })
    },
    onEndpoint: ({ url, tls }, pool) =>
      connections.use(url, tls ?? live.config.pools.find(({ model }) => model === pool?.model)?.tls ?? null),
    onPoolGone: (pool) => {
      prompts.remove(pool.model)
      pipeline.renewProfile(pool)
      admission.wake(pool.model)
    },
    onWorker: (worker) => {
      events.addWorker(worker)
      replication?.shared.addWorker(worker)
    },
    onTold: (worker, told) => truth.told(worker, told),
    onCut: (worker) => forwarder.cut(worker),
    get assumedBlockSize() {
      const { enabled, blockSize } = live.config.approximate
      return enabled ? blockSize : null
    },
    onWorkerLost: ({ slot }) => own.sentPrompts.forget(slot as WorkerSlot),
    onWorkerGone: (worker) => {
      own.sentPrompts.forget(worker.slot as WorkerSlot)
      events.removeWorker(worker)
      replication?.shared.removeWorker(worker)
      truth.forget(worker)
      if (![...fleet.workers()].some(({ origin }) => origin === worker.origin)) {
        forwarder.forget(worker.origin)
        if (!keeper.knows(worker.origin)) connections.use(worker.origin, null)
      }
      metrics.forgetWorker(worker.id, () => fleet.get(worker.id) === undefined)
    },
    onLoadAsked: (worker) => fleetLoad.asked(worker),
    onLoad: (worker) => {
      fleetLoad.read(worker)
      room.read(worker)
      if (worker.load?.prefix !== undefined) truth.hitsCounted(worker, worker.load.prefix)
    },
    wantsHits: (worker) => truth.wantsHits(worker),
    onHits: (worker, counters) => truth.hitsCounted(worker, counters),
    onWorkerRestarted: (worker) => fleetLoad.restarted(worker),
    startEvents: (worker, place, reading) => events.start(worker, place, reading),
    startLoadFeed: (worker, place, onLoad) => startLoadFeed(worker, place, onLoad, { metrics, random }),
    probe: async (worker) => {
      const result = await probeWorker(worker, { prompts, http: engineHttp, log })
      truth.probed(worker, causeOfProbe(result))
      return result.kind
    },
  })

  const lookups = new Lookups({ stores, keys: new PromptKeys(keys), http: engineHttp, metrics, clock })
  const pipeline: Pipeline = new Pipeline({
    prompts,
    pools,
    keys,
    map,
    coming: own.coming,
    sentPrompts: own.sentPrompts,
    mapSlots,
    fleet,
    load: fleetLoad,
    profileOf: (pool) => newProfile(pool.model),
    tierCreditOf: (pool) => tierCredit(live.config, pool.model),
    onRouted: (pool, tokens) => lookups.routed(pool, tokens),
    forwarder,
    admission,
    hasPlaceOn: (worker) => room.hasPlaceOn(worker),
    outliers,
    retries: new RetryBudget(config.retries),
    decisions,
    explained: new DecisionLog(1, config.limits.workers),
    ...(decisionFile === null ? {} : { recorder: decisionFile }),
    metrics,
    log,
    clock,
    wallClock: Date.now,
    truth,
    get staleLoadMs() {
      return live.config.load.staleMs
    },
    responsesKept: config.limits.responsesKept,
    ...(replication === null
      ? {}
      : { ownersElsewhere: replication.shared.owners, dispatches: replication.shared.dispatches }),
    onUnreachable: (worker, refused) => keeper.reportUnreachable(worker, refused),
  })

  const readiness = new Readiness({ config: () => live.config, fleet })
  const views = adminViews({
    ...{ fleet, map, keeper, metrics, prompts, truth },
    approximate: own.approximate,
    shared: () => sharedSources.view(),
    replication: () => replication?.view() ?? null,
  })
  const doors = new Doors({
    ...{ config, readiness, log, metrics },
    current: () => live.config,
    served: { pipeline, pools, prompts },
    shown: { pipeline, decisions, ...views, fleet: workerCommands({ keeper, pools, view: views.workerView }) },
  })

  const sharedSources = new SharedSources({ stores, keys, metrics, log, random })
  const discoveries = new Discoveries({ keeper, clock, log, metrics })
  const setup = new PoolSetup({
    pools,
    keeper,
    prompts,
    discoveries,
    sharedSources,
    lookups,
    pipeline,
    onRemoved: ({ model }) => admission.wake(model),
  })
  const reloadables: readonly Reloadable[] = [
    plugins.reloadable,
    (next) => () => {
      admission.reconfigure(next.admission)
      room.limits = saturationLimits(next)
    },
    () => connections.renewed(),
    (next) => doors.prepare(next),
    (next) => () => ownLog?.setLevel(next.log.level),
    (next) => () => forwarder.reconfigure(forwardLimits(next)),
    (next) => () => (live.config = next),
    // The last one: a tokenizer that was loaded in another one's place cannot be taken back.
    (next) => setup.prepare(next),
  ]
  const load = parts.source?.load ?? (() => live.config)
  const reloader: Reloader = new Reloader({ config, load, parts: reloadables, log, metrics })

  const stopAll = async (): Promise<void> => {
    watched?.stop()
    plugins.stop()
    discoveries.stop()
    stopAdmission()
    if (readiness.started) await warmStart?.stop()
    await keeper.stop()
    await replication?.stop()
    await Promise.all([forwarder.close(), engineHttp.close(), events.close(), sharedSources.stop(), prompts.close()])
    pipeline.close()
    await decisionFile?.close()
    own.stop()
    metrics.stop()
    ownLog?.flush()
  }
  try {
    await replication?.start()
    const apply = await setup.prepare(config)
    apply()
    const { publicUrl, adminUrl } = await doors.open()
    metrics.start()
    await Promise.race([keeper.firstChecks(), timeout(firstChecksMs)])
    readiness.waitsFor = 'the map'
    const logPosition = (await warmStart?.begin()) ?? null
    await replication?.open(logPosition)
    await replication?.settled(config.snapshot.deadlineMs)
    events.look()
    warmStart?.start()
    readiness.waitsFor = null
    watched?.start()
    plugins.start()
    log.info({ publicUrl, adminUrl, pools: pools.list().map(({ model }) => model) }, 'serving')

    return {
      publicUrl,
      adminUrl,
      async stop() {
        readiness.draining = true
        admission.close()
        watched?.stop()
        const { graceMs } = live.config.shutdown
        log.info({ graceMs }, 'draining')
        await doors.drain(graceMs)
        await stopAll()
      },
      reload: () => reloader.reload(),
    }
  } catch (error) {
    await doors.close()
    await stopAll()
    throw error
  }
}

function timeout(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref()
  })
}
