import { isDeepStrictEqual } from 'node:util'
import type { Config, DiscoveryConfig, PoolConfig, WorkerConfig } from '../config/schema.ts'
import type { Pipeline } from '../pipeline.ts'
import type { PromptService } from '../tokenize/service.ts'
import { checkWorkerTls } from '../workers/connect.ts'
import { newPool, type Pool, type Pools } from '../workers/pool.ts'
import type { Discoveries } from './discoveries.ts'
import type { FleetKeeper } from './keeper.ts'
import type { Lookups } from './lookups.ts'
import type { SharedSources } from './shared-sources.ts'

export interface PoolSetupOptions {
  readonly pools: Pools
  readonly keeper: FleetKeeper
  readonly prompts: PromptService
  readonly discoveries: Discoveries
  readonly sharedSources: SharedSources
  readonly lookups: Lookups
  readonly pipeline: Pick<Pipeline, 'renewProfile'>
  /** A pool is no more: whoever waits for room in it need not. */
  readonly onRemoved: (pool: Pool) => void
}

/** Makes the pools, their tokenizers and the workers in them those of the config, at the start and at each reload. */
export class PoolSetup {
  readonly #o: PoolSetupOptions
  /** By model; pools that engines form themselves are not among them. */
  readonly #configured = new Map<string, Pool>()
  #config: Pick<Config, 'pools' | 'modelPath'> & Partial<Config> = { pools: [] }

  constructor(options: PoolSetupOptions) {
    this.#o = options
  }

  /**
   * Loads what the config needs, which may fail, and answers the change that brings it into being, which cannot.
   * @throws RouterError TOKENIZER_UNREADABLE, CONFIG_UNREADABLE, CONFIG_INVALID
   */
  async prepare(next: Config): Promise<() => void> {
    for (const pool of next.pools)
      for (const options of [pool, ...pool.workers, pool.discovery?.worker]) checkWorkerTls(options?.tls ?? {})
    await this.#loadTokenizers(next)
    return () => this.#apply(next)
  }

  async #loadTokenizers(next: Config): Promise<void> {
    const { prompts } = this.#o
    const changed = next.pools.filter(
      (pool) => pool.tokenizer !== undefined && !isDeepStrictEqual(sourceOf(pool), sourceOf(this.#before(pool.model))),
    )
    // All are tried first: one that replaces another cannot be taken back.
    const tried = changed.length > 1 ? changed.filter(({ model }) => this.#before(model) !== undefined) : []
    for (const pool of tried) await prompts.check(sourceOf(pool))
    if (next.workerUrls !== undefined && next.modelPath !== undefined && next.modelPath !== this.#config.modelPath)
      await prompts.check({ path: next.modelPath })
    for (const pool of changed) await prompts.add(pool.model, sourceOf(pool))
  }

  #apply(next: Config): void {
    const { keeper, discoveries, pools, sharedSources, lookups } = this.#o
    for (const [model, pool] of this.#configured)
      if (!next.pools.some((config) => config.model === model)) this.#remove(pool)
    for (const config of next.pools) {
      const pool = this.#pool(config, next)
      keeper.reconcile('config', pool, workersOf(config))
      discoveries.set(pool, discoveryOf(config))
      sharedSources.set(pool, config.shared)
      lookups.set(pool, config.lookup)
    }
    const urls = (next.workerUrls ?? []).map((url) => ({ url }))
    if (urls.length > 0 || this.#config.workerUrls !== undefined) keeper.reconcile('config', null, urls)
    if (next.workerUrls === undefined) pools.forming = false
    this.#config = next
  }

  /** The pool of this config, with its names and profile as they are now. */
  #pool(config: PoolConfig, next: Config): Pool {
    const { pools, pipeline, keeper, prompts } = this.#o
    const { model } = config
    const known = pools.list().find((candidate) => candidate.model === model)
    const pool = known ?? newPool(model)
    const before = this.#before(model)
    pool.aliases = config.aliases ?? []
    const served = pool.workers.flatMap(({ models }) => [...(models ?? [])])
    for (const adapter of before?.adapters ?? []) if (!served.includes(adapter)) pool.adapters.delete(adapter)
    for (const adapter of config.adapters ?? []) pool.adapters.add(adapter)
    this.#configured.set(model, pool)
    keeper.adopt(pool)
    if (before?.tokenizer !== undefined && config.tokenizer === undefined) prompts.remove(model)
    if (known === undefined) pools.add(pool)
    else if (!isDeepStrictEqual(policyOf(this.#config, before), policyOf(next, config))) pipeline.renewProfile(pool)
    return pool
  }

  #remove(pool: Pool): void {
    const { pools, keeper, discoveries, pipeline, prompts, sharedSources, lookups } = this.#o
    this.#configured.delete(pool.model)
    discoveries.set(pool, undefined)
    sharedSources.set(pool, [])
    lookups.set(pool, undefined)
    pools.remove(pool)
    keeper.dropPool(pool)
    pipeline.renewProfile(pool)
    if (this.#before(pool.model)?.tokenizer !== undefined) prompts.remove(pool.model)
    this.#o.onRemoved(pool)
  }

  #before(model: string): PoolConfig | undefined {
    return this.#config.pools.find((pool) => pool.model === model)
  }
}

function sourceOf(pool: PoolConfig | undefined): { path: string; chatTemplate?: string } {
  return {
    path: pool?.tokenizer ?? '',
    ...(pool?.chatTemplate === undefined ? {} : { chatTemplate: pool.chatTemplate }),
  }
}

/** What a pool's profile is made from. */
function policyOf(config: Partial<Config>, pool: PoolConfig | undefined): unknown {
  return [pool?.profile ?? config.profile, config.plugins, config.pluginLimits, config.tiers, pool?.tiers]
}

/** What holds for every worker of the pool that says nothing else. */
function commonOptions({ blockSize, tls }: PoolConfig): Partial<WorkerConfig> {
  return { ...(blockSize === undefined ? {} : { blockSize }), ...(tls === undefined ? {} : { tls }) }
}

function workersOf(pool: PoolConfig): WorkerConfig[] {
  return pool.workers.map((worker) => ({ ...commonOptions(pool), ...worker }))
}

function discoveryOf(pool: PoolConfig): DiscoveryConfig | undefined {
  return pool.discovery === undefined
    ? undefined
    : { ...pool.discovery, worker: { ...commonOptions(pool), ...pool.discovery.worker } }
}
