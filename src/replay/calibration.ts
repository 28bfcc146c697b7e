import { RouterError } from '../errors.ts'
import type { EngineOptions } from '../simulator/engine-options.ts'

/** What an engine on a given machine can do: every figure of the engine model that a measurement would change. */
export interface Calibration {
  readonly blockSize: number
  readonly maxBatchedTokens: number
  readonly maxRunningRequests: number
  readonly prefillTokensPerSecond: number
  /** A step lasts its base, its prefill tokens at that rate, and a share for each request that generates. */
  readonly stepBaseMs: number
  readonly decodeMsPerRequest: number
  /** Keys and values of a token on one worker, over all its GPUs. */
  readonly kvBytesPerToken: number
  readonly hostBytesPerSecond: number
  readonly diskBytesPerSecond: number
  /** From the shared store to one node. */
  readonly sharedBytesPerSecond: number
}

interface Preset {
  readonly description: string
  readonly figures: Calibration
}

const kibi = 1024
const giga = 1e9

const field: Calibration = {
  blockSize: 16,
  maxBatchedTokens: 2_048,
  maxRunningRequests: 256,
  prefillTokensPerSecond: 8_000,
  stepBaseMs: 6,
  decodeMsPerRequest: 0.35,
  kvBytesPerToken: 128 * kibi,
  hostBytesPerSecond: 25 * giga,
  diskBytesPerSecond: 5 * giga,
  sharedBytesPerSecond: 1.2 * giga,
}

/** None is hard-wired into a policy: policies learn, or are told by their parameters. */
export const presets: Readonly<Record<string, Preset>> = {
  standard: {
    description: 'the simulator’s engine: 8,000 prefill tokens/s, steps of 6 ms and 0.35 ms per generating request',
    figures: field,
  },
  agentic: {
    description: 'twice the prefill rate of the standard engine, blocks of 64, for long prompts',
    figures: { ...field, blockSize: 64, maxBatchedTokens: 8_192, prefillTokensPerSecond: 16_000 },
  },
  'h100-8b': {
    description:
      'an estimate, not measured: 8 billion parameters in bf16 on one H100, loads over PCIe 5, NVMe and 100 GbE',
    figures: {
      blockSize: 16,
      maxBatchedTokens: 8_192,
      maxRunningRequests: 256,
      // 16 GFLOP a token at 40 % of 990 TFLOP/s.
      prefillTokensPerSecond: 25_000,
      // 16 GB of weights at 3.35 TB/s, and what a step costs besides; 4k tokens of keys and values a request.
      stepBaseMs: 7,
      decodeMsPerRequest: 0.16,
      kvBytesPerToken: 128 * kibi,
      hostBytesPerSecond: 40 * giga,
      diskBytesPerSecond: 7 * giga,
      sharedBytesPerSecond: 11 * giga,
    },
  },
}

export const defaultPreset = 'standard'

/** A preset by name with some of its figures replaced. CONFIG_INVALID names what is unknown or out of range. */
export function calibrated(name: string, replaced: Readonly<Record<string, unknown>> = {}): Calibration {
  const preset = presets[name]
  if (preset === undefined)
    throw new RouterError('CONFIG_INVALID', `Unknown calibration "${name}". Known: ${Object.keys(presets).join(', ')}`)
  for (const [key, value] of Object.entries(replaced)) {
    if (!(key in preset.figures))
      throw new RouterError(
        'CONFIG_INVALID',
        `Calibration: unknown figure "${key}". Known: ${Object.keys(preset.figures).join(', ')}`,
      )
    if (typeof value !== 'number' || !(value > 0))
      throw new RouterError('CONFIG_INVALID', `Calibration: "${key}" must be a number above 0`)
  }
  return { ...preset.figures, ...replaced }
}

/** Prompts are as long as the trace has them, whatever an engine's default limit; what the cache cannot hold is left out. */
export function engineOf(figures: Calibration, capacityBlocks: number): Partial<EngineOptions> {
  const { blockSize, maxBatchedTokens, maxRunningRequests } = figures
  const { prefillTokensPerSecond, stepBaseMs, decodeMsPerRequest } = figures
  return {
    ...{ blockSize, capacityBlocks, maxBatchedTokens, maxRunningRequests },
    ...{ prefillTokensPerSecond, stepBaseMs, decodeMsPerRequest },
    maxModelLength: capacityBlocks * blockSize,
  }
}
