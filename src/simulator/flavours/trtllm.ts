import type { FastifyInstance, FastifyReply } from 'fastify'
import { fastBlockHash } from '../block-hash.ts'
import type { EngineDrive } from '../engine-drive.ts'
import type { EngineStats } from '../engine.ts'
import type { Flavour, FlavourKind, LifeOptions, Surface, SurfaceOptions } from '../flavour.ts'
import { addGenerationRoutes } from '../generation-routes.ts'
import { trtllmChain } from '../trtllm-block-hash.ts'
import { TrtllmOutlet, type TrtllmOutletOptions } from '../trtllm-events.ts'

export interface TrtllmSettings extends Pick<
  TrtllmOutletOptions,
  'slidingWindow' | 'partialBlocks' | 'bufferedEvents'
> {
  /** return_perf_metrics: GET /prometheus/metrics. */
  readonly metrics: boolean
  /** Methods of /kv_cache_events. */
  readonly polledBy: 'POST' | 'GET'
  /** A poll is answered once no event has come for so long; 0: at once. The server's own is 2000. */
  readonly pollWaitMs: number
}

/** TensorRT-LLM's `trtllm-serve`, by its source of 2026; none was run beside it. */
export function trtllm(settings: Partial<TrtllmSettings> = {}): Flavour {
  const all: TrtllmSettings = {
    slidingWindow: null,
    partialBlocks: false,
    bufferedEvents: 65_536,
    metrics: true,
    polledBy: 'POST',
    pollWaitMs: 0,
    ...settings,
  }
  const engine = { blockSize: 32, hostWrites: 'evicted', blockHash: trtllmChain } as const
  return { name: 'trtllm', engine, open: (life) => Promise.resolve(open(life, all)) }
}

export const trtllmKind: FlavourKind = {
  blockHashes: { v1: trtllmChain, fast: fastBlockHash },
  options: {
    'sliding-window': {
      value: 'TOKENS',
      least: 0,
      default: 0,
      help: 'TensorRT-LLM: a second, smaller window; 0: none',
    },
    'partial-blocks': { flag: true, value: '', help: 'TensorRT-LLM: announce partial blocks too' },
    'poll-wait-ms': {
      value: 'MS',
      least: 0,
      default: 0,
      help: 'TensorRT-LLM: polls are answered once no event has come for so long; 2000 there',
    },
    'iteration-stats': { flag: true, value: '', help: 'TensorRT-LLM: no /prometheus/metrics, as by default there' },
  },
  create: (given) =>
    trtllm({
      slidingWindow: given.number('sliding-window') || null,
      partialBlocks: given.flag('partial-blocks'),
      metrics: !given.flag('iteration-stats'),
      pollWaitMs: given.number('poll-wait-ms'),
    }),
}

function open(life: LifeOptions, settings: TrtllmSettings): Surface {
  const { events, ranks } = life
  const outlets =
    events === null
      ? []
      : ranks.map(
          ({ options }, rank) =>
            new TrtllmOutlet({
              ...settings,
              rank: ranks.length === 1 ? null : rank,
              blocksPerLevel: [options.capacityBlocks, options.hostBlocks],
              window: options.maxModelLength,
            }),
        )
  return {
    outlets,
    places: {},
    addRoutes(app, serving, options) {
      addGenerationRoutes(app, serving)
      addFactRoutes(app, options)
      addPolledRoutes(app, outlets, life, settings)
      if (settings.metrics) addPrometheusRoute(app, options)
    },
    close: () => Promise.resolve(),
    kill: () => Promise.resolve(),
  }
}

function addFactRoutes(app: FastifyInstance, { model, startedSeconds }: SurfaceOptions): void {
  app.get('/health', (_, reply) => reply.code(200).send())
  app.get('/version', () => ({ version: '1.2.0' }))
  app.get('/server_info', () => ({ disaggregated_params: null }))
  const row = { id: model, object: 'model', created: Math.floor(startedSeconds), owned_by: 'tensorrt_llm' }
  app.get('/v1/models', () => ({ object: 'list', data: [row] }))
}

/** What each reader takes away: events of all ranks, and a record of each iteration since the last one. */
function addPolledRoutes(
  app: FastifyInstance,
  outlets: readonly TrtllmOutlet[],
  { clock, ranks }: LifeOptions,
  { polledBy, pollWaitMs }: TrtllmSettings,
): void {
  app.route({
    method: polledBy,
    url: '/kv_cache_events',
    handler: async (_, reply) => {
      const said = (): number => outlets.reduce((sum, outlet) => sum + outlet.nextSequence, 0)
      for (let before = -1; pollWaitMs > 0 && said() !== before;) {
        before = said()
        await new Promise<void>((resolve) => clock.after(pollWaitMs, resolve))
      }
      const lists = outlets.map((outlet) => outlet.take().slice(1, -1))
      return asJson(reply, `[${lists.filter((list) => list !== '').join(', ')}]`)
    },
  })
  const told = ranks.map(() => 0)
  app.get('/metrics', () =>
    ranks.flatMap((drive, rank) => {
      const { steps } = drive.stats
      if (told[rank] === steps) return []
      told[rank] = steps
      return [iterationRecord(drive, rank)]
    }),
  )
}

function iterationRecord({ stats, options }: EngineDrive, rank: number): object {
  const usedNumBlocks = Math.round(stats.kvUsage * options.capacityBlocks)
  return {
    iter: stats.steps,
    iterLatencyMS: options.stepBaseMs,
    numActiveRequests: stats.running,
    numQueuedRequests: stats.waiting,
    attentionDpRank: rank,
    kvCacheStats: {
      maxNumBlocks: options.capacityBlocks,
      freeNumBlocks: options.capacityBlocks - usedNumBlocks,
      usedNumBlocks,
      tokensPerBlock: options.blockSize,
      cacheHitRate: hitRate(stats),
    },
  }
}

function addPrometheusRoute(app: FastifyInstance, { model, ranks }: SurfaceOptions): void {
  const labels = `engine_type="pytorch",model_name="${model.replace(/["\\\n]/g, '_')}"`
  app.get('/prometheus/metrics', (_, reply) => {
    // Of several ranks the server tells the first one's.
    const { stats, options } = ranks[0] as EngineDrive
    const gauges: readonly (readonly [name: string, help: string, value: number])[] = [
      ['num_requests_running', 'Number of active requests', stats.running],
      ['num_requests_waiting', 'Number of queued requests', stats.waiting],
      ['kv_cache_utilization', 'KV cache utilization', stats.kvUsage],
      ['kv_cache_hit_rate', 'KV cache hit rate', hitRate(stats)],
      ['kv_cache_tokens_per_block', 'Tokens in a KV cache block', options.blockSize],
      ['kv_cache_max_blocks', 'Blocks of the KV cache', options.capacityBlocks],
    ]
    reply.type('text/plain; version=0.0.4; charset=utf-8')
    return gauges
      .map(
        ([name, help, value]) =>
          `# HELP trtllm_${name} ${help}\n# TYPE trtllm_${name} gauge\ntrtllm_${name}{${labels}} ${value}\n`,
      )
      .join('')
  })
}

function hitRate({ prefixHitTokens, prefixQueryTokens }: EngineStats): number {
  return prefixQueryTokens === 0 ? 0 : prefixHitTokens / prefixQueryTokens
}

function asJson(reply: FastifyReply, text: string): string {
  reply.type('application/json')
  return text
}
