import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { RouterError } from '../errors.ts'
import { loadTokenizer } from '../tokenize/tokenizer.ts'
import { fastBlockHash } from './block-hash.ts'
import { engineDefaults } from './engine.ts'
import type { LoraAdapter } from './engine-call.ts'
import { startSimulators, workerDefaults } from './simulate.ts'
import { vllmBlockHash } from './vllm-block-hash.ts'

export interface SimulateIo {
  readonly out: (text: string) => void
  readonly error: (text: string) => void
  /** Fulfilled when the process is asked to end. */
  readonly ended: Promise<unknown>
}

interface Option {
  readonly value: string
  readonly help: string
  readonly default?: string | number
  /** Least allowed value of a number; `fraction` where it need not be whole. */
  readonly least?: number
  readonly fraction?: boolean
  readonly multiple?: boolean
  /** Given without a value. */
  readonly flag?: boolean
}

const ports = { least: 0, value: 'PORT' }

/** Every option of `simulate`. Names that `vllm serve` has too are vLLM's. */
export const simulateOptions = {
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
    value: 'fast|sha256|sha256_cbor',
    default: 'fast',
    help: 'block hashes: quick ones, or vLLM’s own',
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
} as const satisfies Record<string, Option>

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
  const given = new Given(argv)
  const loras = given.list('lora-modules').map(adapterOf)
  const on = (name: 'events' | 'prompt-tokens-details'): boolean => given.oneOf(name, ['on', 'off']) === 'on'
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
      seed: given.number('seed'),
      blockHash: blockHashes[given.oneOf('prefix-caching-hash-algo', ['fast', 'sha256', 'sha256_cbor'])],
    },
    worker: {
      loras,
      ranks: given.number('data-parallel-size'),
      topic: given.text('topic'),
      eventHashes: given.oneOf('event-hashes', ['int', 'bytes']),
      promptTokensDetails: on('prompt-tokens-details'),
      storedResponses: given.number('stored-responses'),
      scaleOut: given.flag('enable-scale-out'),
      faultControl: given.flag('faults'),
      startDelayMs: given.number('start-delay-ms'),
      timeScale: given.number('time-scale'),
    },
  } as const
  const demo = fileURLToPath(new URL('../../config/tokenizers/demo', import.meta.url))
  const tokenizer = await loadTokenizer({ path: given.text('model-path') || demo })
  const simulators = await startSimulators({ ...options, tokenizer })
  for (const worker of simulators.workers) {
    const { events, replay } = worker.eventEndpoints()
    io.out(eventsPort === null ? worker.url : `${worker.url}  events ${events}  replay ${replay}`)
  }
  await io.ended
  await simulators.stop()
  return 0
}

const blockHashes = {
  fast: fastBlockHash,
  sha256: vllmBlockHash('pickle'),
  sha256_cbor: vllmBlockHash('cbor'),
} as const

type Name = keyof typeof simulateOptions

/** The values of a command line, defaults filled in. */
class Given {
  readonly #values: Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>

  constructor(argv: readonly string[]) {
    const options = Object.fromEntries(
      tableRows().map(([name, { flag = false, multiple = false }]) => [
        name,
        { type: flag ? ('boolean' as const) : ('string' as const), multiple },
      ]),
    )
    try {
      this.#values = parseArgs({ args: [...argv], options, strict: true, allowPositionals: false }).values
    } catch (cause) {
      const [reason = ''] = (cause as Error).message.split('. ')
      throw new RouterError('CONFIG_INVALID', `${reason}. "warmroute simulate --help" lists the options.`, { cause })
    }
  }

  text(name: Name): string {
    const { default: standard = '' }: Option = simulateOptions[name]
    const value = this.#values[name]
    return typeof value === 'string' ? value : String(standard)
  }

  list(name: Name): readonly string[] {
    const value = this.#values[name]
    return Array.isArray(value) ? value.map(String) : []
  }

  flag(name: Name): boolean {
    return this.#values[name] === true
  }

  number(name: Name): number {
    const { least = 0, fraction = false }: Option = simulateOptions[name]
    const text = this.text(name)
    const value = Number(text)
    if (text.trim() === '' || !Number.isFinite(value) || value < least || (!fraction && !Number.isInteger(value))) {
      throw new RouterError(
        'CONFIG_INVALID',
        `--${name} must be a ${fraction ? '' : 'whole '}number of at least ${least}, not "${text}".`,
      )
    }
    return value
  }

  oneOf<Choice extends string>(name: Name, choices: readonly Choice[]): Choice {
    const text = this.text(name)
    const choice = choices.find((other) => other === text)
    if (choice === undefined) {
      throw new RouterError('CONFIG_INVALID', `--${name} must be ${choices.join(' or ')}, not "${text}".`)
    }
    return choice
  }
}

function adapterOf(text: string): LoraAdapter {
  const [, name, path] = /^([^=]+)=(.+)$/.exec(text) ?? []
  if (name === undefined || path === undefined) {
    throw new RouterError('CONFIG_INVALID', `--lora-modules must be NAME=PATH, not "${text}".`)
  }
  return { name, path }
}

function tableRows(): [string, Option][] {
  return Object.entries(simulateOptions)
}

function usage(): string {
  const rows = tableRows().map(([name, { value, help, default: standard = '' }]) => {
    const shown = standard === '' ? '' : ` (default: ${standard})`
    return `  ${`--${name} ${value}`.padEnd(34)}${help}${shown}`
  })
  return ['Usage: warmroute simulate [options]', '', 'Starts simulated vLLM engines.', '', ...rows].join('\n')
}
