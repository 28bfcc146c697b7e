import Type from 'typebox'
import { integer, object, oneOf, text } from './words.ts'

const seconds = (tier: string) =>
  Type.Optional(integer(`For blocks of the ${tier} tier; 0: never. Omitted: 600.`, 0, 30 * 24 * 3600))
const tokens = (tier: string) =>
  Type.Optional(integer(`Most tokens of the ${tier} tier; omitted: no such limit.`, 1, 2 ** 40))

const forget = object(
  {
    hostSeconds: seconds('host'),
    diskSeconds: seconds('disk'),
    sharedSeconds: seconds('shared'),
    hostTokens: tokens('host'),
    diskTokens: tokens('disk'),
    sharedTokens: tokens('shared'),
  },
  {
    description:
      'When chunks are taken for gone whose store never tells what it removes; ends with the first removal that it tells.',
  },
)

const workerEvents = object(
  {
    endpoint: Type.Optional(text('ZMQ endpoint on which the engine publishes KV events, e.g. tcp://10.0.0.5:5557.')),
    replay: Type.Optional(text('ZMQ endpoint on which the engine replays past events.')),
    topic: Type.Optional(Type.String({ description: 'Topic to subscribe to; empty takes all.', default: '' })),
    bind: Type.Optional(
      text('Listen here for engines that connect to the router, instead of connecting to `endpoint`.'),
    ),
    poll: Type.Optional(
      Type.Union([Type.Boolean(), Type.String({ minLength: 1, pattern: '^https?://' })], {
        description:
          'Poll KV events by HTTP (TensorRT-LLM): true for `/kv_cache_events` of the engine, a URL where that is elsewhere, false for not at all.',
      }),
    ),
    redis: Type.Optional(
      text(
        'Redis stream that a bridge writes the events to (docs/event-stream.md); `%h`, `%p`, `%r` stand for the worker’s host, port and rank.',
      ),
    ),
    retainSeconds: Type.Optional(
      integer(
        'Entries of that stream older than its newest by more are removed; 0: left to the writer.',
        0,
        30 * 24 * 3600,
        {
          default: 600,
        },
      ),
    ),
    media: Type.Optional(
      Type.Record(Type.String(), oneOf(['gpu', 'host', 'disk', 'shared'], 'Tier.'), {
        description:
          'Media that mean another tier here than their name says, e.g. `cpu: shared` for a connector to a pool that all workers reach.',
      }),
    ),
    forget: Type.Optional(forget),
  },
  { description: 'Where KV events come from; omitted: asked of the engine.' },
)

export const workerTls = object(
  {
    ca: Type.Optional(text('File of CA certificates that sign the engine’s; omitted: those that Node trusts.')),
    cert: Type.Optional(text('File of the certificate that the router shows to the engine.')),
    key: Type.Optional(text('File of that certificate’s private key.')),
    serverName: Type.Optional(text('Name that the engine’s certificate must bear; omitted: the host in its URL.')),
    insecure: Type.Optional(
      Type.Boolean({ description: 'Take any certificate, so that anyone on the way can read along.', default: false }),
    ),
  },
  { description: 'TLS towards engines with https URLs.' },
)

const labels = Type.Record(Type.String(), Type.String(), { description: 'Labels that policies may read, e.g. zone.' })

/** Options of a worker beside its address. */
export const foundOptions = {
  engine: Type.Optional(oneOf(['vllm', 'sglang', 'trtllm', 'openai'], 'Kind of engine; omitted: detected.')),
  ranks: Type.Optional(integer('Data-parallel ranks behind this URL; each is a worker of its own.', 1, 1024)),
  blockSize: Type.Optional(integer('Tokens a KV block; omitted: learned from the engine.', 1, 65_536)),
  capacityBlocks: Type.Optional(integer('KV blocks that the engine can hold; omitted: learned.', 1, 2 ** 31)),
  events: Type.Optional(
    Type.Union([workerEvents, Type.Literal(false)], { description: 'KV event source, or false for none.' }),
  ),
  nativeHash: Type.Optional(
    object(
      {
        algorithm: Type.Optional(text('Its --prefix-caching-hash-algo; omitted: as the engine tells.')),
        seed: Type.Optional(text('Its PYTHONHASHSEED; omitted: not set there, or a usual one is found.')),
      },
      { description: 'How the engine names its blocks, for verifying them.' },
    ),
  ),
  apiKey: Type.Optional(text('Key sent to this engine instead of the client’s own authorization.')),
  headers: Type.Optional(
    Type.Record(Type.String(), Type.String(), { description: 'Headers added to every request to this engine.' }),
  ),
  labels: Type.Optional(labels),
  tls: Type.Optional(workerTls),
}

export const workerOptions = {
  url: text('Base URL of the engine. Credentials in it become an authorization header.'),
  ...foundOptions,
}

export const worker = object(workerOptions)

/** What a discovery's file holds. */
export const workerListSchema = Type.Array(Type.Union([Type.String({ minLength: 1 }), worker]))

/** Body of `POST /admin/workers`. */
export const addedWorkerSchema = object({
  pool: Type.Optional(text('Model of the pool to join; omitted: the one that the engine says it serves.')),
  ...workerOptions,
})

/** Body of `PATCH /admin/workers`. */
export const workerChangeSchema = object({
  state: Type.Optional(oneOf(['active', 'draining'], 'Whether the worker gets new requests.')),
  labels: Type.Optional(labels),
})
