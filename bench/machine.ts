import { execFileSync } from 'node:child_process'
import { cpus, loadavg, totalmem } from 'node:os'

/** What a result must be read with. */
export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  readonly node: string
  readonly loadBefore: number
}

export function machine(): Machine {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    node: process.version,
    loadBefore: loadavg()[0] ?? NaN,
  }
}

export function commit(): string {
  try {
    const text = (...args: string[]): string => execFileSync('git', args, { encoding: 'utf8' }).trim()
    return text('rev-parse', '--short', 'HEAD') + (text('status', '--porcelain', 'src') === '' ? '' : ' with changes')
  } catch {
    return 'unknown'
  }
}
