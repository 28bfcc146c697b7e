import { fileURLToPath } from 'node:url'
import { RouterError } from '../errors.ts'
import { loadTokenizer } from '../tokenize/tokenizer.ts'
import type { BlockHash } from './block-hash.ts'
import { engineDefaults } from './engine-options.ts'
import type { LoraAdapter } from './engine-call.ts'
import type { FlavourKind } from './flavour.ts'
import { flavours } from './flavours.ts'
import { Given, type Option } from './given.ts'
import { SharedStore } from './shared-store.ts'
import { misreports, type Misreport } from './misreport.ts'
import { startSimulators, workerDefaults } from './simulate.ts'

export interface SimulateIo {
  readonly out: (text: string) => void
  readonly error: (text: string) => void
  /** Fulfilled when the process is asked to end. */
  readonly ended: Promise<unknown>
}

const ports = { least: 0, value: 'PORT' }

/** Every option of `simulate`, whatever the engine. Names that `vllm serve` has too are vLLM's. */
export const simulateOptions = {
  engine: { value: Object.keys(flavours).join('|'), default: 'vllm', help: 'the kind of engine' },
  workers: { value: 'N', least: 1, default: 4, help: 'engines to start' },
  host: { value: 'ADDRESS', default: workerDefaults.host, help: 'address to listen on' },
  'http-port': { ...ports, default: 8_000, help: 'HTTP port of the first engine, the others follow; 0: any' },
  'events-port': { ...ports, default: 5_557, help: 'KV-event port of the first engine and rank; 0: any' },
  'replay-port': { ...ports, default: 6_557, help: 'replay port of the first engine and rank; 0: any' },
  events: { value: 'on|off', default: 'on', help: 'whether engines publish KV events' },
  model: { value: 'NAME', default: 'simulated', help: 'model name that the engines serve' },
  'model-path': { value: 'DIR', help: 'directory with tokenizer.json (default: the small demonstration tokenizer)' },
  'lora-modules': { value: 'NAME=PATH', multiple: true, help: 'an adapter to serve beside the model; may be repeated' },
  'block-size': { value: 'TOKENS', least: 1, default: engineDefaults.blockSize, help: 'tokens in a KV block' },
  'capacity-blocks': { value: 'N', least: 2, default: engineDefaults.capacityBlocks, help: 'KV blocks of an engine' },
  'max-model-len': {
    value: 'TOKENS',
    least: 2,
    default: engineDefaults.maxModelLength,
    help: 'longest prompt plus answer',
  },
  'max-num-seqs': {
    value: 'N',
    least: 1,
    default: engineDefaults.maxRunningRequests,
    help: 'requests computed at once',
  },
  'max-num-batched-tokens': {
    value: 'TOKENS',
    least: 1,
    default: engineDefaults.maxBatchedTokens,
    help: 'tokens of one step, over all requests',
  },
  'prefill-rate': {
    value: 'TOKENS/S',
    least: 1,
    default: engineDefaults.prefillTokensPerSecond,
    help: 'prompt tokens computed in a second',
  },
  'step-ms': {
    value: 'MS',
    least: 0,
    fraction: true,
    default: engineDefaults.stepBaseMs,
    help: 'least duration of a step',
  },
  'decode-ms': {
    value: 'MS',
    least: 0,
    fraction: true,
    default: engineDefaults.decodeMsPerRequest,
    help: 'what each decoding request adds to a step',
  },
  'host-blocks': { value: 'N', least: 0, default: engineDefaults.hostBlocks, help: 'blocks of the host tier; 0: none' },
  'host-writes': {
    value: 'through|evicted',
    default: engineDefaults.hostWrites,
    help: 'copy a block to the host once it is full, or when it leaves the GPU',
  },
  'host-load-ms': {
    value: 'MS',
    least: 0,
    fraction: true,
    default: engineDefaults.hostLoadMsPerBlock,
    help: 'to load a block from the host tier',
  },
  'shared-chunks': {
    value: 'N',
    least: 0,
    default: 0,
    help: 'chunks of 256 tokens in a store that all engines share; 0: none',
  },
  'time-scale': {
    value: 'FACTOR',
    least: 0.001,
    fraction: true,
    default: workerDefaults.timeScale,
    help: 'how much faster than life',
  },
  seed: { value: 'N', least: 0, default: engineDefaults.seed, help: 'determines, with the prompt, every answer' },
  'data-parallel-size': { value: 'N', least: 1, default: workerDefaults.ranks, help: 'ranks of an engine' },
  topic: { value: 'TEXT', default: workerDefaults.topic, help: 'topic of the KV events' },
  'event-hashes': { value: 'int|bytes', default: workerDefaults.eventHashes, help: 'form of block hashes in events' },
  'prefix-caching-hash-algo': {
    value: 'NAME',
    help: `block hashes, the engine’s first one by default: ${hashNames()}`,
  },
  'prompt-tokens-details': { value: 'on|off', default: 'on', help: 'whether usage tells the cached tokens' },
  'stored-responses': {
    value: 'N',
    least: 0,
    default: workerDefaults.storedResponses,
    help: 'responses kept for later ones to go on from',
  },
  'enable-scale-out': { flag: true, value: '', help: 'serve /inference/v1/generate, which takes token ids' },
  faults: { flag: true, value: '', help: 'let POST /simulator/fault make requests go wrong' },
  'start-delay-ms': {
    value: 'MS',
    least: 0,
    default: workerDefaults.startDelayMs,
    help: 'connections are refused for so long',
  },
  misreport: { value: misreports.join('|'), multiple: true, help: 'do or tell other than it should; may be repeated' },
} as const satisfies Record<string, Option>

/** Options that only one kind of engine has. */
const flavourOptions: Readonly<Record<string, Option>> = Object.fromEntries(
  Object.values(flavours).flatMap(({ options }) => Object.entries(options)),
)
const allOptions: Readonly<Record<keyof typeof simulateOptions, Option>> = { ...flavourOptions, ...simulateOptions }

export const simulateUsage = usage()

/**
 * Starts simulated engines, prints where each is, and stops them when the process is asked to end. Answers the exit code.
 * Throws RouterError for what the user can mend (CONFIG_INVALID, TOKENIZER_UNREADABLE, PORT_IN_USE).
 */
export async function runSimulate(argv: readonly string[], io: SimulateIo): Promise<number> {
  if (argv.includes('--help') || argv.includes('-h')) {
    io.out(simulateUsage)
    return 0
  }
  const given = new Given(argv, allOptions)
  const kind = kindOf(given)
  const loras = given.list('lora-modules').map(adapterOf)
  const on = (name: 'events' | 'prompt-tokens-details'): boolean => given.oneOf(name, ['on', 'off']) === 'on'
  const sharedChunks = given.number('shared-chunks')
  const eventsPort = on('events') ? given.number('events-port') : null
  const options = {
    workers: given.number('workers'),
    host: given.text('host'),
    httpPort: given.number('http-port'),
    eventsPort,
    replayPort: given.number('replay-port'),
    model: given.text('model'),
    engine: {
      blockSize: given.number('block-size'),
      capacityBlocks: given.number('capacity-blocks'),
      maxModelLength: given.number('max-model-len'),
      maxRunningRequests: given.number('max-num-seqs'),
      maxBatchedTokens: given.number('max-num-batched-tokens'),
      prefillTokensPerSecond: given.number('prefill-rate'),
      stepBaseMs: given.number('step-ms'),
      decodeMsPerRequest: given.number('decode-ms'),
      hostBlocks: given.number('host-blocks'),
      hostWrites: given.oneOf('host-writes', ['through', 'evicted']),
      hostLoadMsPerBlock: given.number('host-load-ms'),
      sharedStore: sharedChunks === 0 ? null : new SharedStore({ capacityChunks: sharedChunks }),
      seed: given.number('seed'),
      blockHash: blockHashOf(given, kind),
    },
    worker: {
      flavour: kind.create(given),
      loras,
      ranks: given.number('data-parallel-size'),
      topic: given.text('topic'),
      eventHashes: given.oneOf('event-hashes', ['int', 'bytes']),
      promptTokensDetails: on('prompt-tokens-details'),
      storedResponses: given.number('stored-responses'),
      scaleOut: given.flag('enable-scale-out'),
      faultControl: given.flag('faults'),
      startDelayMs: given.number('start-delay-ms'),
      misreport: given.list('misreport').map(misreportOf),
      timeScale: given.number('time-scale'),
    },
  } as const
  const demo = fileURLToPath(new URL('../../config/tokenizers/demo', import.meta.url))
  const tokenizer = await loadTokenizer({ path: given.text('model-path') || demo })
  const simulators = await startSimulators({ ...options, tokenizer })
  for (const worker of simulators.workers) {
    const places = Object.entries(worker.places).map(([word, endpoint]) => `  ${word} ${endpoint}`)
    io.out(worker.url + places.join(''))
  }
  await io.ended
  await simulators.stop()
  return 0
}

/** Options of one kind of engine are refused for the others, which would do without a word what was not asked for. */
function kindOf(given: Given): FlavourKind {
  const engine = given.oneOf('engine', Object.keys(flavours))
  for (const [other, { options }] of Object.entries(flavours)) {
    const stray = Object.keys(options).find((name) => given.has(name))
    if (other !== engine && stray !== undefined) {
      throw new RouterError('CONFIG_INVALID', `--${stray} is for engines of the kind ${other}, not ${engine}.`)
    }
  }
  return flavours[engine] as FlavourKind
}

function blockHashOf(given: Given, { blockHashes }: FlavourKind): BlockHash {
  const names = Object.keys(blockHashes)
  const name = given.text('prefix-caching-hash-algo') || (names[0] ?? '')
  const blockHash = blockHashes[name]
  if (blockHash === undefined) {
    throw new RouterError(
      'CONFIG_INVALID',
      `--prefix-caching-hash-algo must be ${names.join(' or ')} for this engine, not "${name}".`,
    )
  }
  return blockHash
}

function misreportOf(text: string): Misreport {
  const known = misreports.find((name) => name === text)
  if (known !== undefined) return known
  throw new RouterError('CONFIG_INVALID', `--misreport must be ${misreports.join(' or ')}, not "${text}".`)
}

function adapterOf(text: string): LoraAdapter {
  const [, name, path] = /^([^=]+)=(.+)$/.exec(text) ?? []
  if (name === undefined || path === undefined) {
    throw new RouterError('CONFIG_INVALID', `--lora-modules must be NAME=PATH, not "${text}".`)
  }
  return { name, path }
}

function hashNames(): string {
  return Object.entries(flavours)
    .map(([engine, { blockHashes }]) => `${engine} ${Object.keys(blockHashes).join('|')}`)
    .join(', ')
}

function usage(): string {
  const column = 36
  const all = [...Object.entries<Option>(simulateOptions), ...Object.entries(flavourOptions)]
  const rows = all.map(([name, { value, help, default: standard = '' }]) => {
    const shown = standard === '' ? '' : ` (default: ${standard})`
    const left = `  --${name} ${value}`
    // What is too long for its column has the help below it.
    return `${left.length < column ? left.padEnd(column) : `${left}\n${' '.repeat(column)}`}${help}${shown}`
  })
  return ['Usage: warmroute simulate [options]', '', 'Starts simulated engines.', '', ...rows].join('\n')
}
