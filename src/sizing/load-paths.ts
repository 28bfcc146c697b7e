import {
  assumedPrefillUtilization,
  breakEven,
  estimatedPrefillTokensPerSecond,
  type BreakEven,
  type LoadPath,
} from './break-even.ts'
import { tokenBytesOfModel, tokenBytesPerRank } from './kv-bytes.ts'
import type { SizingRequest } from './sizing-request.ts'

/** Prompt tokens a worker computes a second; null where nothing tells. What of it is an estimate is added to `estimates`. */
export function prefillRate(
  { gpu, model, parallelism, prefillTokensPerSecond, prefillUtilization }: SizingRequest,
  estimates: string[],
): number | null {
  if (prefillTokensPerSecond !== undefined) return prefillTokensPerSecond
  if (gpu?.flopsPerSecond === undefined) return null
  const utilization = prefillUtilization ?? assumedPrefillUtilization
  const gpuCount = parallelism.tensor * parallelism.pipeline
  const rate = estimatedPrefillTokensPerSecond(model, { flopsPerSecond: gpu.flopsPerSecond }, gpuCount, utilization)
  if (rate !== null)
    estimates.push(
      `prefill rate: ${utilization * 100} % of the peak 16-bit arithmetic, attention to long contexts not counted (--prefill takes a measured one)`,
    )
  return rate
}

/** Share of a link's peak that copies reach. */
const linkEfficiency = 0.8
const assumedDiskBytesPerSecond = 5e9
const assumedSharedBytesPerSecond = 10e9

/** What loading is worth from each tier, by the rates that are given or assumed. */
export function loadWorths(
  { bytesPerSecond = {}, dtype, gpu, model, parallelism }: SizingRequest,
  prefillTokensPerSecond: number,
  estimates: string[],
): BreakEven[] {
  const rankBytes = tokenBytesPerRank(model, dtype, parallelism)
  const wholeBytes = tokenBytesOfModel(model, dtype)
  const paths: LoadPath[] = []
  const host = bytesPerSecond.host ?? (gpu?.hostBytesPerSecond ?? 0) * linkEfficiency
  // Every rank has a link of its own and loads what it holds.
  if (host > 0) paths.push({ tier: 'host', bytesPerSecond: host, tokenBytes: rankBytes })
  if (bytesPerSecond.host === undefined && host > 0)
    estimates.push(`host memory at ${linkEfficiency * 100} % of ${gpu?.hostLink ?? 'the link'} (--host-bandwidth)`)
  const disk = bytesPerSecond.disk ?? assumedDiskBytesPerSecond
  const shared = bytesPerSecond.shared ?? assumedSharedBytesPerSecond
  paths.push({ tier: 'disk', bytesPerSecond: disk, tokenBytes: wholeBytes })
  paths.push({ tier: 'shared', bytesPerSecond: shared, tokenBytes: wholeBytes })
  if (bytesPerSecond.disk === undefined) estimates.push('disk at 5 GB/s a worker: assumed (--disk-bandwidth)')
  if (bytesPerSecond.shared === undefined)
    estimates.push('shared store at 10 GB/s a worker, 80 % of 100 Gbit/s: assumed (--shared-bandwidth)')
  return paths.map((path) => breakEven(path, prefillTokensPerSecond))
}
