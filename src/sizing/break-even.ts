import type { Gpu } from './gpus.ts'
import type { ModelConfig } from './model-config.ts'
import { activeParameterCount } from './weights.ts'

/** From where a worker loads KV blocks, and how fast. */
export interface LoadPath {
  readonly tier: string
  readonly bytesPerSecond: number
  /** Bytes that cross this path for one token. */
  readonly tokenBytes: number
}

export interface BreakEven {
  readonly tier: string
  readonly bytesPerSecond: number
  readonly tokenBytes: number
  readonly loadTokensPerSecond: number
  /** Share of a token's prefill time that loading it saves: 1 − load / prefill, and 0 where loading takes longer. */
  readonly worth: number
  /** Below this rate it is faster to compute the token again. */
  readonly breakEvenBytesPerSecond: number
}

/** What loading a token is worth. The time until the first byte comes is not counted: it matters for short prefixes only. */
export function breakEven({ bytesPerSecond, tier, tokenBytes }: LoadPath, prefillTokensPerSecond: number): BreakEven {
  const loadTokensPerSecond = bytesPerSecond / tokenBytes
  return {
    ...{ tier, bytesPerSecond, tokenBytes, loadTokensPerSecond },
    worth: Math.max(0, 1 - prefillTokensPerSecond / loadTokensPerSecond),
    breakEvenBytesPerSecond: tokenBytes * prefillTokensPerSecond,
  }
}

/** Share of the GPUs' peak arithmetic that a prefill is taken to reach, where nobody says better. */
export const assumedPrefillUtilization = 0.5

/**
 * Prompt tokens that a worker computes a second, by arithmetic alone: two operations for each parameter that a token goes through.
 * Attention over what is already there comes on top, so that long prompts are slower. Null where the config does not tell.
 */
export function estimatedPrefillTokensPerSecond(
  { weights }: ModelConfig,
  gpu: Pick<Gpu, 'flopsPerSecond'>,
  gpuCount: number,
  utilization: number = assumedPrefillUtilization,
): number | null {
  if (weights === null) return null
  return (gpu.flopsPerSecond * gpuCount * utilization) / (2 * activeParameterCount(weights))
}
