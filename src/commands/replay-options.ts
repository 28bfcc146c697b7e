import { RouterError } from '../errors.ts'
import { defaultPreset, presets } from '../replay/calibration.ts'
import { defaultSlo } from '../replay/summary.ts'
import { traceFormats } from '../replay/traces/formats.ts'
import { faultForms } from './replay-faults.ts'

export interface Option {
  readonly value?: string
  readonly default?: string
  readonly multiple?: boolean
  readonly help: string
}

/** Every option of `replay`. */
export const replayOptions = {
  policies: {
    value: 'A,B',
    default: 'kv-aware,least-loaded,round-robin',
    help: 'policies; the first is what the others are compared with: profiles, "oracle", or FILE.yaml#PLACE',
  },
  plugin: { value: 'FILE', multiple: true, help: 'a module that exports policies; may be repeated' },
  workers: { value: 'N', default: '8', help: 'engines' },
  speeds: { value: 'X,Y', help: 'how fast the engines are beside the calibration, one after the other' },
  calibration: {
    value: 'NAME|FILE',
    default: defaultPreset,
    help: `what an engine can do: ${Object.keys(presets).join(', ')}, or a YAML file of figures`,
  },
  'cache-blocks': { value: 'N', help: 'blocks in the KV cache of an engine' },
  'cache-share': {
    value: 'X',
    default: '0.25',
    help: 'without it: what all caches hold of the trace’s distinct blocks',
  },
  users: { value: 'N,M', help: 'closed loop: sessions at once, one or several loads (default: all of the trace)' },
  rate: { value: 'X,Y', help: 'open loop: times the recorded rate, one or several loads (default 1)' },
  'find-limit': { help: 'also find the highest load with 95 % within the SLO' },
  bounds: { help: 'also tell the hit ratios of one cache as large as all together, and of an endless one' },
  'think-scale': { value: 'X', default: '1', help: 'users’ pauses are so many times as long' },
  'think-cap': { value: 'S', help: 'and never longer than so many seconds' },
  duration: { value: 'S', help: 'play so many seconds, with new users coming (default: each session once)' },
  'warm-up': { value: 'S', default: '0', help: 'requests sent before are not counted' },
  jitter: { value: 'S', default: '0', help: 'open loop: requests come up to so much later, by the seed' },
  timeout: { value: 'S', default: '60', help: 'a request without a first token is given up then, and misses the SLO' },
  'slo-ttft': { value: 'MS', default: String(defaultSlo.ttftMs), help: 'first token within so much' },
  'slo-ttft-per-1k': { value: 'MS', default: '0', help: 'and so much more for each 1,000 tokens of the prompt' },
  'slo-itl': { value: 'MS', default: String(defaultSlo.itlMs), help: 'mean time between the tokens of an answer' },
  tiers: {
    value: 'SETUP',
    multiple: true,
    help: 'caches beside the GPUs’, in blocks; may be repeated, each is played: NAME:host=…,disk=…,shared=…,node=…,credit=…; NAME: alone for none',
  },
  fault: {
    value: 'FAULT',
    multiple: true,
    help: `what goes wrong, times in seconds; may be repeated: ${faultForms().join('; ')}`,
  },
  'without-events': { value: 'N', default: '0', help: 'so many engines publish no KV events' },
  'capacity-factor': {
    value: 'X',
    default: '1',
    help: 'what the router takes the caches of those to be, times what they are',
  },
  replicas: { value: 'N', default: '1', help: 'replicas of the router, each request through any of them' },
  'replica-delay': { value: 'MS', default: '1', help: 'until they know what another one did' },
  'real-time': {
    value: '[URL]',
    help: 'play over HTTP: against simulated engines and a router that are started for each run, or against what runs at the URL',
  },
  speed: {
    value: 'X',
    help: 'with --real-time: so many times as fast as recorded (default 1); at a URL pauses and gaps between arrivals alone are shorter',
  },
  'api-key-env': { value: 'NAME', help: 'with --real-time URL: the environment variable that holds the API key' },
  seeds: { value: 'N', default: '3', help: 'runs of each, with seeds 1 to N (at a URL 1)' },
  threads: { value: 'N', help: 'threads (default: processors)' },
  format: {
    value: 'NAME',
    help: `format of the trace: ${traceFormats.map(({ name }) => name).join(', ')} (default: told from its first line)`,
  },
  model: { value: 'NAME', help: 'of a decision log of several models: which; at a URL: the model to ask for' },
  sessions: { value: 'N', help: 'so many leading sessions of the trace, or requests of an open loop, are enough' },
  json: { help: 'print JSON in place of the table' },
  csv: { help: 'print CSV in place of the table' },
  out: { value: 'DIR', help: 'also write index.html, results.json and results.csv there' },
} as const satisfies Record<string, Option>

export type OptionName = keyof typeof replayOptions
export type Values = Partial<Record<OptionName, string | boolean | string[]>>

export function optionLines(): string[] {
  const entries = Object.entries<Option>(replayOptions).map(([name, option]) => ({
    head: option.value === undefined ? `--${name}` : `--${name} ${option.value}`,
    option,
  }))
  const width = Math.max(...entries.map(({ head }) => head.length))
  return [
    `  ${'TRACE'.padEnd(width)}  a recorded workload; docs/replay.md tells the formats`,
    ...entries.map(({ head, option }) => {
      const standard = option.default === undefined ? '' : ` (default ${option.default})`
      return `  ${head.padEnd(width)}  ${option.help}${standard}`
    }),
  ]
}

/** The options of the command line as what they stand for. */
export class Given {
  readonly #values: Values

  constructor(values: Values) {
    this.#values = values
  }

  text(name: OptionName): string | undefined {
    const value = this.#values[name] ?? (replayOptions[name] as Option).default
    return typeof value === 'string' ? value : undefined
  }

  /** Whether it was on the command line. */
  has(name: OptionName): boolean {
    return this.#values[name] !== undefined
  }

  flag(name: OptionName): boolean {
    return this.#values[name] === true
  }

  list(name: OptionName): string[] {
    const value = this.#values[name]
    const text = Array.isArray(value) ? value.join(',') : (this.text(name) ?? '')
    return text.split(',').filter((word) => word !== '')
  }

  /** As often as it was given. */
  all(name: OptionName): readonly string[] {
    const value = this.#values[name]
    return Array.isArray(value) ? value : []
  }

  number(name: OptionName, least: number): number | undefined {
    const text = this.text(name)
    return text === undefined ? undefined : numberOf(name, text, least)
  }

  numbers(name: OptionName, least: number): number[] {
    return this.list(name).map((text) => numberOf(name, text, least))
  }

  /** Without what is undefined. */
  defined<Fields extends object>(fields: Fields): { [Key in keyof Fields]?: NonNullable<Fields[Key]> } {
    const entries = Object.entries(fields).filter(([, value]) => value !== undefined)
    return Object.fromEntries(entries) as { [Key in keyof Fields]?: NonNullable<Fields[Key]> }
  }
}

/** From 1 on numbers are counts. */
function numberOf(name: string, text: string, least: number): number {
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value) || value < least || (least === 1 && !Number.isInteger(value)))
    throw new RouterError(
      'CONFIG_INVALID',
      `--${name} takes ${least === 1 ? 'a whole number' : 'a number'} of at least ${least}, not "${text}"`,
    )
  return value
}
