import { createHash } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import { vllmAlgorithms } from '../../kv/engine-hash/vllm.ts'
import { formatEndpoint } from '../../zmtp/endpoint.ts'
import { ApiError } from '../api-error.ts'
import { addAudioRoutes } from '../audio.ts'
import { fastBlockHash, type BlockHash } from '../block-hash.ts'
import type { EngineDrive } from '../engine-drive.ts'
import { encodeBatch, type EventEncoding } from '../event-encoding.ts'
import { eventPlaces, openPublishers } from '../event-publishers.ts'
import type { Flavour, FlavourKind, LifeOptions, Surface, SurfaceOptions } from '../flavour.ts'
import { addGenerationRoutes } from '../generation-routes.ts'
import { addMessagesRoutes } from '../messages.ts'
import { metricsText } from '../metrics-text.ts'
import { addPoolingRoutes } from '../pooling.ts'
import { addResponsesRoutes } from '../responses.ts'
import type { Serving } from '../serving.ts'
import { addSglangGenerateRoute } from '../sglang-generate.ts'
import { addTokenGenerationRoute } from '../token-generation.ts'
import { addTokenizerRoutes } from '../tokenizer-routes.ts'
import { vllmBlockHash } from '../vllm-block-hash.ts'

/** vLLM 0.32. Its server also has SGLang's /generate, so that one simulator takes every request that the router takes. */
export function vllmFlavour(events: OffloadEvents = {}): Flavour {
  return { name: 'vllm', engine: {}, open: (life) => open(life, events) }
}

export const vllm: Flavour = vllmFlavour()

/** How blocks outside the GPU are told of; `EventEncoding` says what it means. */
export type OffloadEvents = Pick<EventEncoding, 'placeholders' | 'sharedMedium'>

const blockHashes: Readonly<Record<string, BlockHash>> = {
  fast: fastBlockHash,
  ...Object.fromEntries(vllmAlgorithms.map((algorithm) => [algorithm, vllmBlockHash(algorithm)])),
}

export const vllmKind: FlavourKind = {
  blockHashes,
  options: {
    'offload-events': {
      value: 'described|placeholders',
      default: 'described',
      help: 'whether KV events of the host tier bring token ids',
    },
  },
  create: (given) =>
    vllmFlavour({ placeholders: given.oneOf('offload-events', ['described', 'placeholders']) === 'placeholders' }),
}

async function open(life: LifeOptions, offload: OffloadEvents): Promise<Surface> {
  const { events, ranks } = life
  const outlets = await openPublishers({
    ...life,
    ranks: ranks.length,
    encode: (batch, timestampSeconds, rank) =>
      encodeBatch(batch, timestampSeconds, {
        ...offload,
        rank,
        hashes: events?.hashes ?? 'int',
      }),
  })
  return {
    outlets,
    places: eventPlaces(life),
    addRoutes(app, serving, options) {
      addGenerationRoutes(app, serving)
      addMessagesRoutes(app, serving)
      addResponsesRoutes(app, serving, options.storedResponses)
      addTokenizerRoutes(app, options)
      addOperationRoutes(app, serving, options)
      addEventSourcesRoute(app, life)
      addPoolingRoutes(app, serving)
      addAudioRoutes(app, serving)
      addSglangGenerateRoute(app, serving)
      addScaleOutRoutes(app, serving, options.scaleOut)
    },
    close: async () => {
      await Promise.all(outlets.map((outlet) => outlet.close()))
    },
    kill: async () => {
      await Promise.all(outlets.map((outlet) => outlet.kill()))
    },
  }
}

function addOperationRoutes(app: FastifyInstance, serving: Serving, options: SurfaceOptions): void {
  const { loras, maxModelLength, model, ranks } = options
  const createdSeconds = Math.floor(options.startedSeconds)
  app.get('/v1/models', () => {
    const row = (id: string, root: string, parent: string | null) => ({
      id,
      object: 'model',
      created: createdSeconds,
      owned_by: 'vllm',
      root,
      parent,
      max_model_len: parent === null ? maxModelLength : null,
      permission: [permission(id, options.idSeed, createdSeconds)],
    })
    return { object: 'list', data: [row(model, model, null), ...loras.map(({ name, path }) => row(name, path, model))] }
  })
  for (const path of ['/health', '/ping']) app.get(path, (_, reply) => reply.code(200).send())
  app.post('/ping', (_, reply) => reply.code(200).send())
  app.get('/version', () => ({ version: '0.32.0' }))
  app.get('/load', () => ({ server_load: serving.inFlight }))
  app.get('/is_sleeping', () => ({ is_sleeping: false }))
  app.get('/metrics', (_, reply) => {
    const { blockSize, capacityBlocks, blockHash } = (ranks[0] as EngineDrive).options
    const hashAlgorithm = Object.keys(blockHashes).find((name) => blockHashes[name] === blockHash) ?? 'sha256'
    const { startedSeconds } = options
    const stats = ranks.map((rank) => rank.stats)
    reply.type('text/plain; version=0.0.4; charset=utf-8')
    return metricsText({ model, blockSize, capacityBlocks, hashAlgorithm, startedSeconds, ranks: stats })
  })
  app.post('/reset_prefix_cache', () => ({
    success: ranks.map((rank) => rank.resetPrefixCache()).every(Boolean),
  }))
}

function addEventSourcesRoute(app: FastifyInstance, { events, ports, ranks }: LifeOptions): void {
  const bound = (purpose: string, rank: number): string =>
    formatEndpoint({
      host: ports.host === '0.0.0.0' || ports.host === '::' ? '' : ports.host,
      port: ports.of(purpose, rank),
    })
  app.get('/kv_event_sources', () =>
    Object.fromEntries(
      ranks.map((_, rank) => [
        rank,
        events === null
          ? { enable_kv_cache_events: false }
          : {
              enable_kv_cache_events: true,
              publisher: 'zmq',
              endpoint: bound('events', rank),
              replay_endpoint: bound('replay', rank),
              buffer_steps: events.bufferSteps,
              hwm: 100_000,
              max_queue_size: 100_000,
              topic: events.topic,
            },
      ]),
    ),
  )
}

function addScaleOutRoutes(app: FastifyInstance, serving: Serving, enabled: boolean): void {
  const refuse = (): never => {
    throw new ApiError(
      403,
      'Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them.',
    )
  }
  if (enabled) addTokenGenerationRoute(app, serving)
  else app.post('/inference/v1/generate', refuse)
  for (const path of ['/v1/chat/completions/render', '/v1/completions/render']) app.post(path, refuse)
}

function permission(model: string, seed: string, created: number): object {
  return {
    id: `modelperm-${createHash('sha256').update(`${seed} ${model}`).digest('hex').slice(0, 16)}`,
    object: 'model_permission',
    created,
    allow_create_engine: false,
    allow_sampling: true,
    allow_logprobs: true,
    allow_search_indices: false,
    allow_view: true,
    allow_fine_tuning: false,
    organization: '*',
    group: null,
    is_blocking: false,
  }
}
