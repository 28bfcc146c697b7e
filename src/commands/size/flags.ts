import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { RouterError } from '../../errors.ts'
import { findGpu, gpus, type Gpu } from '../../sizing/gpus.ts'
import { kvCacheDtypes, type KvCacheDtype } from '../../sizing/kv-bytes.ts'
import { readModelConfig, type ModelConfig } from '../../sizing/model-config.ts'
import type { SizingRequest } from '../../sizing/sizing-request.ts'
import { parseBytes, parseCount, parseNumber } from './amount.ts'

export const sizeUsage = `warmroute size --model CONFIG.json --gpu NAME [options]

What a model's KV cache takes, what GPUs have room for, what a workload reuses, and when loading KV blocks is worth it.

The model and the engine (options of vLLM keep vLLM's names)
  --model PATH                  config.json of the model as on Hugging Face, or the directory that holds it
  --gpu NAME                    ${wrapped(gpus.map(({ name }) => name))}
  --gpu-memory SIZE             instead of --gpu or over it: the memory of one GPU as the driver reports it
  --tp N, --pp N, --dcp N       ranks that split each layer, stages that split the layers, ranks that split the tokens (1 each)
  --workers N                   engines in the fleet (1)
  --kv-cache-dtype TYPE         ${kvCacheDtypes.join(', ')} (auto: the model's own)
  --block-size N                tokens a KV block (16)
  --max-model-len N             longest sequence (by the model)
  --gpu-memory-utilization X    share of the GPU's memory for the engine (0.92)
  --in-flight-tokens N          tokens scheduled and not settled, for sliding windows (by the GPU)
  --no-prefix-caching           one state a sequence in layers of linear attention, not two

What is known better (each replaces an estimate)
  --weights SIZE                of the whole model, as its files take
  --other SIZE                  what each GPU holds beside weights and KV cache
  --kv-memory SIZE              memory of each GPU for the KV cache, from the engine's log
  --blocks N                    KV blocks, from the engine's log or metrics
  --prefill N                   prompt tokens that one worker computes a second
  --prefill-utilization X       share of the peak arithmetic that a prefill reaches (0.5)
  --host-bandwidth GB/S         host memory to one GPU;  --disk-bandwidth, --shared-bandwidth: to one worker

What to show
  --contexts LIST               lengths for which to tell how many requests fill the GPUs, such as 4Ki,32Ki,128Ki
  --trace FILE                  a workload: hit ratio by cache size, and sizes of tiers (formats of "warmroute replay")
  --trace-format NAME           where the first line does not tell
  --users N                     sessions at once, where a trace gives them no times (64)
  --hit-ratios LIST             wanted hit ratios, such as 0.5,0.8 (50, 75, 90, 95 and 99 % of what is possible)
  --host-memory SIZE            for KV blocks on each worker;  --disk SIZE: on each worker;  --shared SIZE: one store for all
  --json                        all figures as JSON
  --out DIR                     also DIR/sizing.html, with plots, and the plots as SVG

Sizes: 80GiB, 688.6GB, bytes. Counts: 131072, 128Ki. A figure behind ~ is an estimate; the last lines say why.`

/** Names, broken into lines that fit the usage. */
function wrapped(names: readonly string[]): string {
  const lines: string[] = []
  let line = ''
  for (const name of names) {
    if (line.length + name.length > 84) {
      lines.push(line)
      line = ''
    }
    line += line === '' ? name : `, ${name}`
  }
  return [...lines, line].join(`,\n${' '.repeat(32)}`)
}

const options = {
  model: { type: 'string' },
  gpu: { type: 'string' },
  'gpu-memory': { type: 'string' },
  tp: { type: 'string', default: '1' },
  pp: { type: 'string', default: '1' },
  dcp: { type: 'string', default: '1' },
  workers: { type: 'string', default: '1' },
  'kv-cache-dtype': { type: 'string', default: 'auto' },
  'block-size': { type: 'string', default: '16' },
  'max-model-len': { type: 'string' },
  'gpu-memory-utilization': { type: 'string', default: '0.92' },
  'in-flight-tokens': { type: 'string' },
  'no-prefix-caching': { type: 'boolean', default: false },
  weights: { type: 'string' },
  other: { type: 'string' },
  'kv-memory': { type: 'string' },
  blocks: { type: 'string' },
  prefill: { type: 'string' },
  'prefill-utilization': { type: 'string' },
  'host-bandwidth': { type: 'string' },
  'disk-bandwidth': { type: 'string' },
  'shared-bandwidth': { type: 'string' },
  contexts: { type: 'string' },
  trace: { type: 'string' },
  'trace-format': { type: 'string' },
  users: { type: 'string', default: '64' },
  'hit-ratios': { type: 'string' },
  'host-memory': { type: 'string' },
  disk: { type: 'string' },
  shared: { type: 'string' },
  json: { type: 'boolean', default: false },
  out: { type: 'string' },
} as const

export interface SizeFlags {
  readonly request: SizingRequest
  readonly gpu: Partial<Gpu>
  readonly trace: {
    readonly path: string
    readonly format: string | undefined
    readonly users: number
    readonly hitRatios: readonly number[] | undefined
    readonly tiers: { readonly hostBytes?: number; readonly diskBytes?: number; readonly sharedBytes?: number }
  } | null
  readonly json: boolean
  readonly outDirectory: string | undefined
}

type Values = ReturnType<typeof parseArgs<{ options: typeof options }>>['values']

export function sizeFlags(argv: readonly string[]): SizeFlags {
  const { values } = parseArgs({ args: [...argv], options })
  if (values.model === undefined)
    throw new RouterError('CONFIG_INVALID', 'Say which model: --model CONFIG.json (see "warmroute size --help")')
  const model = readModel(values.model)
  const gpu = gpuOf(values)
  return {
    request: { ...requestOf(values, model), ...(Object.keys(gpu).length === 0 ? {} : { gpu }) },
    ...{ gpu, json: values.json, outDirectory: values.out },
    trace: traceOf(values),
  }
}

function readModel(path: string): ModelConfig {
  let text
  const unreadable = (reason: string): never => {
    throw new RouterError('CONFIG_UNREADABLE', `Cannot read the model's config ${path}: ${reason}`)
  }
  try {
    const file = statSync(path).isDirectory() ? join(path, 'config.json') : path
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    return unreadable((cause as Error).message)
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    return unreadable(`it is no JSON (${(cause as Error).message})`)
  }
  return readModelConfig(value, path)
}

function gpuOf(values: Values): Partial<Gpu> {
  const given = values['gpu-memory']
  const memory = given === undefined ? {} : { memoryBytes: parseBytes(given, 'gpu-memory') }
  if (values.gpu === undefined) return memory
  const gpu = findGpu(values.gpu)
  if (gpu === undefined)
    throw new RouterError(
      'CONFIG_INVALID',
      `No GPU "${values.gpu}" in the table: ${gpus.map(({ name }) => name).join(', ')}. Others by --gpu-memory SIZE`,
    )
  return { ...gpu, ...memory }
}

function requestOf(values: Values, model: ModelConfig): SizingRequest {
  const dtype = kvCacheDtypes.find((known) => known === values['kv-cache-dtype'])
  if (dtype === undefined)
    throw new RouterError('CONFIG_INVALID', `--kv-cache-dtype takes one of ${kvCacheDtypes.join(', ')}`)
  const longest =
    values['max-model-len'] === undefined ? model.maxTokens : parseCount(values['max-model-len'], 'max-model-len')
  if (longest === null)
    throw new RouterError('CONFIG_INVALID', 'The config has no max_position_embeddings: give --max-model-len')
  const count = (name: 'tp' | 'pp' | 'dcp' | 'workers' | 'block-size') => parseCount(values[name], name)
  return {
    ...{ model, dtype: dtype satisfies KvCacheDtype, maxTokens: longest },
    workers: count('workers'),
    parallelism: { tensor: count('tp'), pipeline: count('pp'), decodeContext: count('dcp') },
    blockTokens: count('block-size'),
    utilization: parseNumber(values['gpu-memory-utilization'], 'gpu-memory-utilization', 1),
    prefixCaching: !values['no-prefix-caching'],
    contextTokens: contextsOf(values.contexts, longest),
    ...known(values),
    bytesPerSecond: {
      ...optional('host', values['host-bandwidth'], (text) => 1e9 * parseNumber(text, 'host-bandwidth')),
      ...optional('disk', values['disk-bandwidth'], (text) => 1e9 * parseNumber(text, 'disk-bandwidth')),
      ...optional('shared', values['shared-bandwidth'], (text) => 1e9 * parseNumber(text, 'shared-bandwidth')),
    },
  }
}

/** What the user knows better than an estimate. */
function known(values: Values): Partial<SizingRequest> {
  return {
    ...optional('inFlightTokens', values['in-flight-tokens'], (text) => parseCount(text, 'in-flight-tokens')),
    ...optional('weightBytes', values.weights, (text) => parseBytes(text, 'weights')),
    ...optional('otherBytes', values.other, (text) => parseBytes(text, 'other')),
    ...optional('kvMemoryBytes', values['kv-memory'], (text) => parseBytes(text, 'kv-memory')),
    ...optional('blocks', values.blocks, (text) => parseCount(text, 'blocks')),
    ...optional('prefillTokensPerSecond', values.prefill, (text) => parseNumber(text, 'prefill')),
    ...optional('prefillUtilization', values['prefill-utilization'], (text) =>
      parseNumber(text, 'prefill-utilization', 1),
    ),
  }
}

function optional<K extends string>(
  name: K,
  text: string | undefined,
  parse: (text: string) => number,
): Partial<Record<K, number>> {
  const found: Partial<Record<K, number>> = {}
  if (text !== undefined) found[name] = parse(text)
  return found
}

/** Powers of two up to the longest sequence, and that one. */
function contextsOf(text: string | undefined, longest: number): number[] {
  if (text !== undefined) return text.split(',').map((part) => parseCount(part, 'contexts'))
  const lengths: number[] = []
  for (let length = 2048; length < longest; length *= 2) lengths.push(length)
  return [...lengths.slice(-7), longest]
}

function traceOf(values: Values): SizeFlags['trace'] {
  if (values.trace === undefined) {
    const needing = (['hit-ratios', 'host-memory', 'disk', 'shared', 'trace-format'] as const).find(
      (name) => values[name] !== undefined,
    )
    if (needing !== undefined)
      throw new RouterError('CONFIG_INVALID', `--${needing} is about a workload: name one with --trace FILE`)
    return null
  }
  return {
    path: values.trace,
    format: values['trace-format'],
    users: parseCount(values.users, 'users'),
    hitRatios: values['hit-ratios']?.split(',').map((part) => parseNumber(part, 'hit-ratios', 1)),
    tiers: {
      ...optional('hostBytes', values['host-memory'], (text) => parseBytes(text, 'host-memory')),
      ...optional('diskBytes', values.disk, (text) => parseBytes(text, 'disk')),
      ...optional('sharedBytes', values.shared, (text) => parseBytes(text, 'shared')),
    },
  }
}
