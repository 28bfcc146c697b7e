import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { ApiError } from '../api-error.ts'
import { fastBlockHash } from '../block-hash.ts'
import { bodyOf, textOf, type Body } from '../body.ts'
import type { EngineDrive } from '../engine-drive.ts'
import { eventPlaces, openPublishers } from '../event-publishers.ts'
import type { EventPublisher } from '../event-publisher.ts'
import type { Flavour, FlavourKind, LifeOptions, Surface, SurfaceOptions } from '../flavour.ts'
import { readCall } from '../generation-call.ts'
import { LoadPublisher } from '../load-publisher.ts'
import { openInRows } from '../port-ranges.ts'
import type { Serving } from '../serving.ts'
import { SetLike } from '../set-like.ts'
import { sglangOpenAiWording } from '../sglang-answer.ts'
import { sglangBlockHash } from '../sglang-block-hash.ts'
import { encodeSglangBatch } from '../sglang-events.ts'
import { addSglangGenerateRoute } from '../sglang-generate.ts'
import { loadEntry, sglangMetricsText } from '../sglang-load.ts'
import { addSglangTokenizerRoutes } from '../sglang-tokenize.ts'

/** What SGLang does only when it is asked to on its command line. */
export interface SglangSettings {
  /** --enable-cache-report: OpenAI's usage tells the cached tokens. */
  readonly cacheReport: boolean
  /** --enable-metrics: GET /metrics. */
  readonly metrics: boolean
  /** --load-publish-endpoint: the load of each rank is published. */
  readonly publishLoad: boolean
}

/** SGLang 0.5.23. */
export function sglang(settings: Partial<SglangSettings> = {}): Flavour {
  const all = { cacheReport: false, metrics: false, publishLoad: false, ...settings }
  return { name: 'sglang', engine: { blockHash: sglangBlockHash }, open: (life) => open(life, all) }
}

export const sglangKind: FlavourKind = {
  blockHashes: { sha256: sglangBlockHash, fast: fastBlockHash },
  options: {
    'enable-cache-report': { flag: true, value: '', help: 'SGLang: usage tells the cached tokens' },
    'enable-metrics': { flag: true, value: '', help: 'SGLang: serve /metrics' },
    'publish-load': {
      flag: true,
      value: '',
      help: 'SGLang: publish LoadStat beside KV events, as with --load-publish-endpoint auto',
    },
  },
  create: (given) =>
    sglang({
      cacheReport: given.flag('enable-cache-report'),
      metrics: given.flag('enable-metrics'),
      publishLoad: given.flag('publish-load'),
    }),
}

interface Opened {
  readonly outlets: readonly EventPublisher[]
  readonly loads: readonly LoadPublisher[]
}

async function open(life: LifeOptions, settings: SglangSettings): Promise<Surface> {
  const { events, ports, random, ranks } = life
  const purposes = events === null ? [] : ['events', 'replay', ...(settings.publishLoad ? ['load'] : [])]
  const info = {
    random_seed: Math.floor(random() * 2 ** 31),
    enable_cache_report: settings.cacheReport,
    enable_metrics: settings.metrics,
  }
  const { outlets, loads } = await openInRows(ports, { purposes, ranks: ranks.length, random }, () =>
    openAll(life, settings),
  )
  return {
    outlets,
    places: { ...eventPlaces(life), ...(loads.length === 0 ? {} : { load: `tcp://${ports.reachable('load')}` }) },
    addRoutes(app, serving, options) {
      addOpenAiRoutes(app, serving, settings)
      addSglangGenerateRoute(app, serving)
      addSglangTokenizerRoutes(app, options)
      addFactRoutes(app, life, options, { ...settings, info })
      addOperationRoutes(app, options)
    },
    refusal: ({ message, type, param, status }) => ({ object: 'error', message, type, param, code: status }),
    silenceLoad: () => {
      for (const publisher of loads) publisher.silence()
    },
    close: async () => {
      await Promise.all([...outlets, ...loads].map((publisher) => publisher.close()))
    },
    kill: async () => {
      await Promise.all([...outlets, ...loads].map((publisher) => publisher.kill()))
    },
  }
}

async function openAll(life: LifeOptions, { publishLoad }: SglangSettings): Promise<Opened> {
  const { events, ports, ranks } = life
  const outlets = await openPublishers({
    ...life,
    ranks: ranks.length,
    toldOf: () => {
      const tree = new SetLike()
      return (events) => tree.of(events)
    },
    encode: encodeSglangBatch,
  })
  const loads: LoadPublisher[] = []
  try {
    for (const [rank, drive] of publishLoad && events !== null ? ranks.entries() : []) {
      const publisher = await LoadPublisher.open({
        ...life,
        host: ports.host,
        port: ports.of('load', rank),
        rank,
        drive,
      })
      ports.keep('load', rank, publisher.port)
      loads.push(publisher)
    }
    return { outlets, loads }
  } catch (fault) {
    await Promise.all([...outlets, ...loads].map((publisher) => publisher.close()))
    throw fault
  }
}

/** POST /v1/chat/completions and /v1/completions. */
function addOpenAiRoutes(app: FastifyInstance, serving: Serving, { cacheReport }: SglangSettings): void {
  const generate = (kind: 'chat' | 'completion') => async (request: FastifyRequest, reply: FastifyReply) => {
    const exchange = serving.begin(request, reply)
    const { createdSeconds } = exchange
    const body = bodyOf(request.body)
    const { model: served } = serving.options
    const model = textOf(body, 'model') ?? served
    // Ids in place of messages: no template is applied and nothing tokenized.
    const ids = kind === 'chat' && body['input_ids'] !== undefined ? { prompt: body['input_ids'] } : null
    const resolved = { ...body, ...ids, model: adapterOf(body, model) ?? served }
    const call = { ...(await readCall(ids === null ? kind : 'completion', resolved, null, serving.options)), kind }
    const id = serving.id(`answer ${exchange.number}`)
    return serving.answer(exchange, call, (choices) =>
      sglangOpenAiWording({ id, createdSeconds, call, model, cacheReport }, choices),
    )
  }
  app.post('/v1/chat/completions', generate('chat'))
  app.post('/v1/completions', generate('completion'))
}

/** `model` names an adapter behind a colon; before it, and without one, stands whatever the client likes. */
function adapterOf(body: Body, model: string): string | null {
  const at = model.indexOf(':')
  const behind = at === -1 ? '' : model.slice(at + 1).trim()
  return behind !== '' ? behind : textOf(body, 'lora_path')
}

/** What a router asks when it meets the engine, and at times after that. */
function addFactRoutes(
  app: FastifyInstance,
  life: LifeOptions,
  options: SurfaceOptions,
  { metrics, info }: SglangSettings & { readonly info: object },
): void {
  const { ranks } = life
  for (const path of ['/server_info', '/get_server_info'])
    app.get(path, () => ({ ...serverInfo(life, options), ...info }))
  for (const path of ['/model_info', '/get_model_info'])
    app.get(path, () => ({ model_path: life.model, tokenizer_path: life.model, is_generation: true }))
  app.get('/v1/models', () => ({ object: 'list', data: modelRows(options) }))
  app.get('/v1/loads', (request) => {
    const { dp_rank: only } = request.query as { readonly dp_rank?: string }
    if (only !== undefined && !/^\d+$/.test(only)) throw new ApiError(400, 'dp_rank must be a whole number')
    const loads = ranks.map((drive, rank) => loadEntry(rank, drive))
    return {
      timestamp: new Date(1_000 * life.wallSeconds()).toISOString(),
      version,
      accelerator: null,
      num_accelerators: 1,
      loads: only === undefined ? loads : loads.slice(Number(only), Number(only) + 1),
    }
  })
  if (!metrics) return
  app.get('/metrics', (_, reply) => {
    reply.type('text/plain; version=0.0.4; charset=utf-8')
    return sglangMetricsText(life.model, ranks)
  })
}

const version = '0.5.23'

/** The part of SGLang's arguments and state that tells a router what it needs. */
function serverInfo(life: LifeOptions, { loras }: SurfaceOptions): object {
  const { events, model, ports, ranks } = life
  const { blockSize, capacityBlocks, maxModelLength, maxRunningRequests } = (ranks[0] as EngineDrive).options
  const load = ports.of('load')
  const publisher =
    events === null
      ? null
      : {
          publisher: 'zmq',
          endpoint_host: ports.host === '0.0.0.0' ? '*' : ports.host,
          endpoint_port_base: ports.of('events'),
          topic: events.topic,
          block_size: blockSize,
          dp_size: ranks.length,
          replay_endpoint_port_base: ports.of('replay'),
          ...(load === 0 ? {} : { load_endpoint_port_base: load, load_topic: 'load' }),
        }
  return {
    model_path: model,
    tokenizer_path: model,
    served_model_name: model,
    page_size: blockSize,
    dp_size: ranks.length,
    tp_size: 1,
    dcp_size: 1,
    enable_lora: loras.length > 0,
    speculative_algorithm: null,
    max_total_num_tokens: capacityBlocks * blockSize,
    max_req_input_len: maxModelLength - 1,
    max_running_requests: maxRunningRequests,
    status: 'ready',
    version,
    internal_states: ranks.map(({ stats }) => ({ last_gen_throughput: 0, num_running_reqs: stats.running })),
    kv_events: publisher,
  }
}

function modelRows({ loras, maxModelLength, model, startedSeconds }: SurfaceOptions): readonly object[] {
  const row = (id: string, root: string, parent: string | null) => ({
    id,
    object: 'model',
    created: Math.floor(startedSeconds),
    owned_by: 'sglang',
    root,
    parent,
    max_model_len: parent === null ? maxModelLength : null,
  })
  return [row(model, model, null), ...loras.map(({ name, path }) => row(name, path, model))]
}

function addOperationRoutes(app: FastifyInstance, { ranks }: SurfaceOptions): void {
  for (const path of ['/health', '/health_generate', '/ping']) app.get(path, (_, reply) => reply.code(200).send())
  for (const method of ['GET', 'POST'])
    app.route({
      method,
      url: '/flush_cache',
      handler: (_, reply) => {
        const done = ranks.map((rank) => rank.resetPrefixCache()).every(Boolean)
        return reply.code(done ? 200 : 400).send(done ? 'Cache flushed.\n' : 'Requests are running; try again.\n')
      },
    })
}
