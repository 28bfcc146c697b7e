import Type from 'typebox'
import { hourMs, integer, object, oneOf, text } from './words.ts'
import { foundOptions, worker, workerTls } from './worker.ts'

const plugin = object({
  type: text('Name of the plugin.'),
  parameters: Type.Optional(
    Type.Record(Type.String(), Type.Unknown(), {
      description: 'Parameters of the plugin, checked against its own schema.',
    }),
  ),
})

const scorer = object({
  type: plugin.properties.type,
  weight: Type.Optional(Type.Number({ description: 'Weight of its result in the total.', default: 1 })),
  parameters: plugin.properties.parameters,
})

const profileParts = {
  name: Type.Optional(text('Name shown in decisions.')),
  filters: Type.Optional(Type.Array(plugin, { description: 'Filters, in order.' })),
  scorers: Type.Optional(Type.Array(scorer, { description: 'Weighted scorers.' })),
  picker: Type.Optional(object(plugin.properties, { description: 'Takes one; omitted: best-score.' })),
}

const fallback = object({
  type: text('Name of the plugin.'),
  parameters: plugin.properties.parameters,
  use: Type.Optional(
    Type.Union([Type.String({ minLength: 1 }), object(profileParts)], {
      description: 'The profile that chooses where the fallback applies; omitted: least-loaded.',
    }),
  ),
})

export const profile = Type.Union(
  [
    Type.String({ minLength: 1 }),
    object({
      ...profileParts,
      fallbacks: Type.Optional(
        Type.Array(fallback, { description: 'The first that applies hands the choice to another profile.' }),
      ),
    }),
    object({
      from: text('Path of an EndpointPickerConfig of llm-d, whose filters, scorers and picker are taken.'),
      document: Type.Optional(Type.Unknown({ description: 'What the file holds; filled in when it is read.' })),
    }),
  ],
  {
    description: 'Routing profile: a built-in name, or filters, fallbacks, scorers and a picker, or a file of llm-d’s.',
  },
)

const sharedSource = object({
  events: text('ZMQ endpoint on which the store publishes its events.'),
  kind: oneOf(
    ['mooncake', 'lmcache'],
    'Form of the events: those of Mooncake’s master and conductor, or the form that engines use.',
    { default: 'mooncake' },
  ),
  topic: Type.String({ description: 'Topic to subscribe to; empty takes all.', default: '' }),
  blockSize: Type.Optional(
    integer(
      'Tokens of a block that is named by hash alone; omitted: the block size of the pool’s first worker.',
      1,
      65_536,
    ),
  ),
  forgetSeconds: integer(
    'Blocks are taken for gone after so long while the store tells no removals; 0: never.',
    0,
    30 * 24 * 3600,
    { default: 600 },
  ),
})

const lookup = object(
  {
    url: text('URL of the controller, e.g. http://10.0.0.9:9000.', { pattern: '^https?://' }),
    chunkTokens: integer('Its chunk size.', 1, 65_536, { default: 256 }),
    timeoutMs: integer('For one lookup.', 1, 60_000, { default: 500 }),
    concurrency: integer('Lookups at a time; prompts that come while so many are under way get none.', 1, 1_000, {
      default: 4,
    }),
    maxTokens: integer('Of longer prompts only so many tokens are looked up.', 1, 10_000_000, { default: 32_768 }),
    ttlSeconds: integer('What was looked up is believed so long.', 1, 86_400, { default: 30 }),
  },
  {
    description:
      'LMCache’s controller: asked after a request was routed who holds its prompt, for requests to come. Workers name their instance in the label `lmcache-instance`.',
  },
)

const tierSpeed = (tier: string, credit: number) =>
  Type.Optional(
    object(
      {
        credit: Type.Optional(
          Type.Number({
            description: `Worth of a block there, as a share of one on the GPU; omitted: from the speed, else ${credit}.`,
            minimum: 0,
            maximum: 1,
          }),
        ),
        bytesPerSecond: Type.Optional(
          Type.Number({ description: 'How fast blocks are loaded from there.', exclusiveMinimum: 0 }),
        ),
      },
      { description: `The ${tier}.` },
    ),
  )

export const tiers = object(
  {
    bytesPerToken: Type.Optional(
      Type.Number({
        description: 'Keys and values of one token, over all GPUs of a worker; needed for speeds to count.',
        exclusiveMinimum: 0,
      }),
    ),
    host: tierSpeed('worker’s host memory', 0.8),
    disk: tierSpeed('worker’s disk', 0.5),
    shared: tierSpeed('store that all workers reach: 0 ignores it, at 1 only load decides within it', 0.4),
  },
  { description: 'What blocks outside the GPU are worth.' },
)

const discovery = object(
  {
    dns: Type.Optional(
      object(
        {
          name: text('Name to look up.'),
          type: oneOf(['A', 'AAAA', 'SRV'], 'Kind of record; SRV brings the ports.', { default: 'A' }),
          port: Type.Optional(integer('Port of every engine; not for SRV.', 1, 65_535)),
          scheme: oneOf(['http', 'https'], 'How the engines are spoken to.', { default: 'http' }),
          intervalMs: integer('Between two lookups.', 10, hourMs, { default: 5000 }),
          timeoutMs: integer('For one lookup; a second try follows.', 10, hourMs, { default: 2000 }),
          servers: Type.Optional(
            Type.Array(text('IP address, with a port if it is not 53.'), {
              description: 'DNS servers; omitted: the system’s.',
            }),
          ),
        },
        { description: 'Engines behind a DNS name.' },
      ),
    ),
    file: Type.Optional(
      object(
        {
          path: text('YAML or JSON file with a list of workers, each as in the config or a bare URL.'),
          pollMs: integer('Between two looks at the file.', 10, hourMs, { default: 500 }),
        },
        { description: 'Engines listed in a file that is watched.' },
      ),
    ),
    worker: Type.Optional(object(foundOptions, { description: 'Options of every worker found.' })),
  },
  { description: 'Finds workers of the pool; of dns and file, one.' },
)

export const pool = object({
  model: text('Model name that clients send.'),
  aliases: Type.Optional(
    Type.Array(text('Another name for the same model.'), { description: 'Further names of this model.' }),
  ),
  tokenizer: Type.Optional(
    text('Directory with tokenizer.json and tokenizer_config.json; omitted: routed by load only.'),
  ),
  chatTemplate: Type.Optional(text('File with a Jinja chat template that replaces the tokenizer’s own.')),
  blockSize: Type.Optional(integer('Tokens a KV block for all workers; omitted: learned from each engine.', 1, 65_536)),
  adapters: Type.Optional(
    Type.Array(text('LoRA adapter name.'), {
      description: 'LoRA adapters served by name; omitted: learned from /v1/models.',
    }),
  ),
  profile: Type.Optional(profile),
  tiers: Type.Optional(tiers),
  shared: Type.Array(sharedSource, {
    default: [],
    description: 'Stores that all workers of the pool reach and that tell themselves what they hold.',
  }),
  lookup: Type.Optional(lookup),
  tls: Type.Optional(workerTls),
  workers: Type.Array(worker, { description: 'Engines that serve this model.', default: [] }),
  discovery: Type.Optional(discovery),
})
