import Type, { type Static } from 'typebox'
import { eventLosses, staleLoadMs } from './defaults.ts'
import { pool, profile, tiers } from './schema/pool.ts'
import { redis } from './schema/redis.ts'
import { snapshot } from './schema/snapshot.ts'
import { GiB, hourMs, integer, object, oneOf, text } from './schema/words.ts'
import type { addedWorkerSchema, workerChangeSchema } from './schema/worker.ts'

export { addedWorkerSchema, workerChangeSchema, workerListSchema } from './schema/worker.ts'

/**
 * Every option of Warmroute: type, default, unit and one sentence. The types, the validator, the JSON schema and
 * docs/configuration.md all come from here. Units stand last in the names.
 */
const portTls = object(
  {
    cert: text('File of the certificate chain, PEM.'),
    key: text('File of its private key, PEM.'),
    clientCa: Type.Optional(
      text('File of CA certificates; given, only clients with a certificate that one of them signed are let in.'),
    ),
  },
  { description: 'TLS on this port; omitted: plain HTTP.' },
)

const apiKey = object({
  id: text('Name of the key in metrics and logs.', { pattern: '^[A-Za-z0-9._-]{1,64}$' }),
  // Its form is checked beside the schema, whose messages would repeat a key that was put here by mistake.
  hash: text('`sha256:` and the hash of the key, as `warmroute hash-key` prints it.'),
  models: Type.Optional(Type.Array(text('Model name.'), { description: 'Models that the key may use; omitted: all.' })),
  requestsPerMinute: Type.Optional(
    integer('Requests a minute; up to one minute’s worth at once. Omitted: no limit.', 1, 1_000_000_000),
  ),
  tokensPerMinute: Type.Optional(
    integer('Prompt and generated tokens a minute, together. Omitted: no limit.', 1, 1_000_000_000_000),
  ),
  concurrency: Type.Optional(integer('Requests at a time, queued ones included. Omitted: no limit.', 1, 1_000_000)),
  priority: Type.Optional(
    integer('Priority class in the queue: a lower number always goes first. Omitted: 0.', -1000, 1000),
  ),
  weight: Type.Optional(
    Type.Number({
      description: 'Share of the service among the keys of one priority class while they queue. Omitted: 1.',
      minimum: 0.01,
      maximum: 1000,
    }),
  ),
})

export const configSchema = object({
  listen: object(
    {
      host: text('Address of the public port.', { default: '127.0.0.1' }),
      port: integer('Public port; 0 lets the system choose.', 0, 65_535, { default: 8080 }),
      tls: Type.Optional(portTls),
    },
    { default: {}, description: 'The public, OpenAI-compatible port.' },
  ),
  admin: object(
    {
      host: text('Address of the admin port.', { default: '127.0.0.1' }),
      port: Type.Optional(integer('Admin port; omitted: the public port + 1.', 0, 65_535)),
      keyHash: Type.Optional(
        // Its form is checked beside the schema, whose messages would repeat a key that was put here by mistake.
        text('`sha256:` and the hash of the key that operators send; needed where `host` is not loopback.'),
      ),
      tls: Type.Optional(portTls),
    },
    { default: {}, description: 'The admin port: health, metrics, workers, map, decisions.' },
  ),
  log: object(
    { level: oneOf(['debug', 'info', 'warn', 'error', 'silent'], 'Least level that is logged.', { default: 'info' }) },
    { default: {}, description: 'Logging, as JSON lines on standard output.' },
  ),
  expose: oneOf(
    ['loopback', 'keys', 'all'],
    'Who sees x-warmroute-* headers: clients on loopback, clients with a key, or all.',
    { default: 'loopback' },
  ),
  forwarded: object(
    {
      trustedProxies: Type.Array(text('Address or range, e.g. 10.0.0.0/8.'), {
        default: [],
        description:
          'Proxies in front whose x-forwarded-* headers are believed and added to; those of others are dropped.',
      }),
    },
    { default: {}, description: 'Headers that tell where a request came from.' },
  ),
  readiness: oneOf(['started', 'anyWorker'], '/readyz is 200 once started, or only while a worker is healthy.', {
    default: 'started',
  }),
  limits: object(
    {
      bodyBytes: integer('Largest request body.', 1024, 2 * GiB, { default: 32 * 1024 * 1024 }),
      headerBytes: integer('Largest request head.', 1024, 1024 * 1024, { default: 16_384 }),
      heldEventBytes: integer('Largest server-sent event held back until it is complete.', 1024, 64 * 1024 * 1024, {
        default: 1024 * 1024,
      }),
      heldAnswerBytes: integer(
        'Largest error answer of an engine that is read and passed on.',
        1024,
        64 * 1024 * 1024,
        {
          default: 1024 * 1024,
        },
      ),
      answerHeaderBytes: integer('Largest head of an engine’s answer.', 1024, 1024 * 1024, { default: 32_768 }),
      responsesKept: integer('Stored responses (Responses API) whose worker is remembered.', 1, 10_000_000, {
        default: 100_000,
      }),
      connectionsPerWorker: integer('Connections to one engine; requests beyond wait for one.', 1, 65_536, {
        default: 4096,
      }),
      workers: integer('Workers (ranks counted) that the process can hold.', 1, 4096, { default: 256 }),
      bodiesBytes: integer(
        'Request bodies in memory at once; while they fill it, further ones get 503.',
        1024,
        1024 * GiB,
        { default: GiB },
      ),
      headers: integer('Most headers of a request.', 16, 2000, { default: 100 }),
      connections: integer('Most connections of clients to each port; further ones are closed at once.', 1, 1_000_000, {
        default: 20_000,
      }),
    },
    { default: {}, description: 'Limits; what exceeds one is refused with a clear error.' },
  ),
  apiKeys: Type.Array(apiKey, {
    default: [],
    description: 'API keys of clients, hashed; with none configured no key is needed.',
  }),
  admission: object(
    {
      queue: object(
        {
          requests: integer('Requests that may wait for room in one pool; 0 refuses at once.', 0, 65_536, {
            default: 256,
          }),
          timeoutMs: integer('Longest wait.', 1, hourMs, { default: 2000 }),
        },
        { default: {}, description: 'The queue in front of a pool whose workers are all saturated.' },
      ),
      overloadStatus: Type.Union([Type.Literal(429), Type.Literal(503), Type.Literal(529)], {
        description: 'HTTP status of a request that found the queue full, or waited in it too long.',
        default: 429,
      }),
      saturation: object(
        {
          waitingRequests: integer('Requests waiting in the engine’s own queue.', 1, 1_000_000, { default: 8 }),
          kvUsage: Type.Number({
            description: 'Share of the KV cache in use, from which on one waiting request is enough.',
            minimum: 0.01,
            maximum: 1,
            default: 0.95,
          }),
          requestsPerWorker: Type.Optional(
            integer(
              'Requests of this router on one worker, whatever its figures say. Omitted: no limit.',
              1,
              1_000_000,
            ),
          ),
        },
        { default: {}, description: 'From which figures on a worker gets no further requests.' },
      ),
    },
    { default: {}, description: 'Admission: who waits, how long, and what the refused are told.' },
  ),
  timeouts: object(
    {
      connectMs: integer('To connect to an engine.', 1, hourMs, { default: 800 }),
      firstTokenMs: integer('From sending a streaming request to its first body byte.', 1, hourMs, {
        default: 300_000,
      }),
      idleMs: integer('Between two body chunks of a stream.', 1, hourMs, { default: 120_000 }),
      totalMs: integer('Whole answer of a non-streaming request.', 1, 24 * hourMs, { default: 1_800_000 }),
      headersMs: integer('For the head of a client’s request to arrive.', 100, hourMs, { default: 10_000 }),
      requestMs: integer('For a client’s whole request to arrive, head and body.', 100, hourMs, { default: 60_000 }),
      keepAliveMs: integer(
        'An idle connection of a client is kept this long; longer than a load balancer in front keeps it.',
        100,
        hourMs,
        { default: 75_000 },
      ),
      lingerMs: integer(
        'After a refusal the rest of a body is read and thrown away this long, so that the client sees the answer.',
        0,
        60_000,
        { default: 2000 },
      ),
      streamTotalMs: integer('Whole answer of a streaming request.', 1, 7 * 24 * hourMs, { default: 4 * hourMs }),
      clientStallMs: integer('For a client that has stopped reading its answer.', 1, 24 * hourMs, {
        default: 120_000,
      }),
    },
    { default: {}, description: 'Time limits on engines and clients, in milliseconds.' },
  ),
  retries: object(
    {
      attempts: integer('Other workers that a request is tried on before its first byte; 0 turns retries off.', 0, 5, {
        default: 1,
      }),
      budgetShare: Type.Number({
        description: 'Retries that may be under way, as a share of the requests that are.',
        minimum: 0,
        maximum: 1,
        default: 0.2,
      }),
      minimum: integer('Retries that may be under way however few requests are.', 0, 10_000, { default: 3 }),
    },
    { default: {}, description: 'Retries on another worker, before the first byte of an answer.' },
  ),
  outliers: object(
    {
      failures: integer(
        'Failures in a row (refused or broken connection, 5xx, late first token) that eject a worker.',
        1,
        1000,
        {
          default: 5,
        },
      ),
      baseEjectionMs: integer('First ejection; each further one takes twice as long.', 1, hourMs, { default: 1000 }),
      maxEjectionMs: integer('Longest ejection.', 1, 24 * hourMs, { default: 60_000 }),
      maxEjectedShare: Type.Number({
        description: 'Most workers of a pool that may be ejected, as a share; yet at least one.',
        minimum: 0,
        maximum: 1,
        default: 0.5,
      }),
      panicShare: Type.Number({
        description: 'With a smaller share of the pool’s workers left, ejections are ignored.',
        minimum: 0,
        maximum: 1,
        default: 0.5,
      }),
      slowStart: object(
        {
          windowMs: integer('For which a worker that came back or joined gets less than its share.', 0, hourMs, {
            default: 10_000,
          }),
          floorShare: Type.Number({
            description: 'Its share at the start, of a fair one.',
            minimum: 0.01,
            maximum: 1,
            default: 0.1,
          }),
        },
        { default: {}, description: 'Slow start; not where all workers of a pool are new.' },
      ),
      maxPressureMs: integer('Longest time for which a worker’s own `retry-after` is believed.', 0, hourMs, {
        default: 10_000,
      }),
    },
    { default: {}, description: 'Passive health: workers that fail requests are taken out for a while.' },
  ),
  health: object(
    {
      intervalMs: integer('Between two active checks of a worker.', 10, hourMs, { default: 300 }),
      timeoutMs: integer('For one check.', 10, hourMs, { default: 650 }),
      path: Type.Optional(
        text('Path that is checked; omitted: the engine’s own (/health, SGLang /ping).', { pattern: '^/' }),
      ),
      failures: integer(
        'Failed checks in a row that make a worker unhealthy; a refused connection counts at once.',
        1,
        100,
        { default: 2 },
      ),
    },
    { default: {}, description: 'Active health checks.' },
  ),
  load: object(
    {
      intervalMs: integer('Between two reads of an engine’s load metrics.', 20, hourMs, { default: 500 }),
      staleMs: integer('Age beyond which a load figure is not used.', 20, hourMs, { default: staleLoadMs }),
    },
    { default: {}, description: 'Load figures scraped from the engines.' },
  ),
  eventLosses: object(
    {
      gaps: integer('Gaps that no replay fills, from which on a worker’s events are left alone.', 1, 1000, {
        default: eventLosses.gaps,
      }),
      withinSeconds: integer(
        'Within which those gaps come; after as long without one the events count again.',
        1,
        86_400,
        { default: eventLosses.withinSeconds },
      ),
    },
    {
      default: {},
      description: 'From when on a worker whose events keep being lost is routed by what it is sent.',
    },
  ),
  eventPolling: object(
    {
      intervalMs: integer('Between two polls of an engine while they bring events.', 1, hourMs, { default: 20 }),
      idleIntervalMs: integer('Longest time between two polls that bring none.', 1, hourMs, { default: 200 }),
      timeoutMs: integer(
        'For one poll; the engine itself may wait for events before it answers, and those of an answer that comes too late are lost.',
        100,
        hourMs,
        { default: 30_000 },
      ),
      lateMs: integer(
        'An engine that leaves a poll unanswered for longer is routed by what is sent to it: its events come too late.',
        100,
        hourMs,
        { default: 3500 },
      ),
      answerBytes: integer('Largest answer to one poll; what a larger one holds is lost.', 65_536, 4 * GiB, {
        default: 256 * 1024 * 1024,
      }),
    },
    { default: {}, description: 'KV events that are polled by HTTP (TensorRT-LLM).' },
  ),
  agreement: object(
    {
      requests: integer('Requests with something cached until the predictions for a worker are judged.', 5, 10_000, {
        default: 30,
      }),
      leastRatio: Type.Number({
        description: 'Below this agreement of predicted and reported cached tokens a worker is routed by load only.',
        minimum: 0,
        maximum: 1,
        default: 0.3,
      }),
      recoveredRatio: Type.Number({
        description: 'From this agreement on it is believed again.',
        minimum: 0,
        maximum: 1,
        default: 0.6,
      }),
    },
    { default: {}, description: 'Truth check of the map: when a worker’s predictions are believed.' },
  ),
  truth: object(
    {
      graceMs: integer('How long after an answer the events of what it stored may come.', 10, hourMs, {
        default: 1000,
      }),
      silentMs: integer('How long KV events may be silent while requests store new blocks.', 10, hourMs, {
        default: 5000,
      }),
      nativeIntervalMs: integer(
        'Between two verifications of an engine’s own block hashes; each costs one block.',
        100,
        24 * hourMs,
        { default: 600_000 },
      ),
    },
    { default: {}, description: 'Truth check of the map: its times.' },
  ),
  map: object(
    {
      budgetBytes: integer('Most memory for the map; the coldest chains go first.', 1024 * 1024, 64 * GiB, {
        default: GiB,
      }),
    },
    { default: {}, description: 'The KV-cache map.' },
  ),
  approximate: object(
    {
      enabled: Type.Boolean({
        description: 'Conclude what a worker without KV events holds from what it was sent; false: route it by load.',
        default: true,
      }),
      ttlSeconds: integer('For which a block is believed to be held after its last use.', 1, 86_400, { default: 600 }),
      capacityBlocks: integer(
        'Blocks that such a worker holds, where neither it nor its config says.',
        16,
        100_000_000,
        {
          default: 16_384,
        },
      ),
      blockSize: integer('Tokens in a block of such a worker, where neither it nor its config says.', 1, 4096, {
        default: 16,
      }),
    },
    { default: {}, description: 'Workers without KV events.' },
  ),
  coming: object(
    {
      requests: integer(
        'Requests under way whose prompts count as coming on their workers; the oldest is forgotten first, 0: none count.',
        0,
        65_536,
        { default: 1024 },
      ),
    },
    { default: {}, description: 'Prediction on route: what was sent counts before events tell of it.' },
  ),
  keys: object(
    {
      secret: Type.Optional(
        text(
          'Secret in every block key; the same on all replicas that share state. Omitted: random for each process.',
          { minLength: 16 },
        ),
      ),
    },
    { default: {}, description: 'Block keys.' },
  ),
  redis: Type.Optional(redis),
  snapshot,
  tokenizer: object(
    {
      threads: Type.Optional(
        integer('Threads for long prompts; omitted: processors − 1, at least 1 and at most 3.', 1, 64),
      ),
      cacheBytes: integer('Most memory for the token cache.', 0, 16 * GiB, { default: 128 * 1024 * 1024 }),
      queued: integer('Long prompts that may wait for a thread.', 1, 100_000, { default: 512 }),
      probeIntervalMs: integer('Between two comparisons with a worker’s own /tokenize.', 1000, 24 * hourMs, {
        default: hourMs,
      }),
    },
    { default: {}, description: 'Tokenizing.' },
  ),
  decisions: object(
    {
      kept: integer('Decisions kept for /admin/decisions.', 1, 100_000, { default: 1000 }),
      log: Type.Optional(
        text('File that gets a line for each answered request, with the keys of its blocks and lengths, for `replay`.'),
      ),
      logBytes: integer('Size at which that file is put aside and a new one begun.', 1024, 64 * GiB, {
        default: 256 * 1024 * 1024,
      }),
      logFiles: integer('Files put aside that are kept, as FILE.1 and so on.', 0, 1000, { default: 4 }),
    },
    { default: {}, description: 'Decision records.' },
  ),
  shutdown: object(
    {
      graceMs: integer('For running answers to finish after SIGTERM.', 0, 24 * hourMs, { default: 30_000 }),
      drainWorkerMs: integer('For running answers of a worker that is removed.', 0, 24 * hourMs, { default: 180_000 }),
    },
    { default: {}, description: 'Ending.' },
  ),
  reload: object(
    {
      watch: Type.Boolean({
        description: 'Reload when the config file changes; SIGHUP does in any case.',
        default: true,
      }),
      pollMs: integer('Between two looks at the config file.', 10, hourMs, { default: 500 }),
    },
    { default: {}, description: 'Taking over a changed config without a restart.' },
  ),
  profile: Type.Optional(profile),
  tiers: Type.Optional(tiers),
  modelPath: Type.Optional(text('Tokenizer directory of pools that are formed from `workerUrls`.')),
  workerUrls: Type.Optional(
    Type.Array(text('Base URL of an engine.'), {
      description: 'Engines that form pools by the model id in their /v1/models.',
    }),
  ),
  pools: Type.Array(pool, { default: [], description: 'Pools: the workers that serve one model with one tokenizer.' }),
  pluginLimits: object(
    {
      stallMs: Type.Number({
        description: 'A call of a policy plugin that takes longer is a fault.',
        minimum: 0.1,
        maximum: 60_000,
        default: 20,
      }),
      faults: integer('So many faults of a plugin in a row leave it out for a while.', 1, 1000, { default: 5 }),
      pauseMs: integer('For so long.', 100, hourMs, { default: 30_000 }),
      trialMs: integer('For the trial of a plugin before it is taken.', 100, 600_000, { default: 20_000 }),
    },
    { default: {}, description: 'What routing policy plugins may do before they are left out.' },
  ),
  plugins: Type.Array(text('npm package or file.'), { default: [], description: 'Routing policy plugins to load.' }),
})

export type Config = Static<typeof configSchema>
export type ApiKeyConfig = Config['apiKeys'][number]
export type PoolConfig = Config['pools'][number]
export type SnapshotConfig = Config['snapshot']
export type RedisConfig = NonNullable<Config['redis']>
export type WorkerConfig = PoolConfig['workers'][number]
export type LookupConfig = NonNullable<PoolConfig['lookup']>
export type SharedSourceConfig = PoolConfig['shared'][number]
export type DiscoveryConfig = NonNullable<PoolConfig['discovery']>
export type AddedWorker = Static<typeof addedWorkerSchema>
export type WorkerChange = Static<typeof workerChangeSchema>
export type ProfileConfig = NonNullable<PoolConfig['profile']>
