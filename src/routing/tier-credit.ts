/** How fast a tier gives back what it holds, or what that is worth where it is not known. */
export interface TierSpeed {
  /** Worth of a block there, as a share of one on the GPU; goes before the speed. */
  readonly credit?: number
  readonly bytesPerSecond?: number
}

export interface TierSettings {
  /** Bytes of keys and values that a token takes on one worker, over all its GPUs. */
  readonly bytesPerToken?: number
  readonly host?: TierSpeed
  readonly disk?: TierSpeed
  readonly shared?: TierSpeed
}

/** Blocks or tokens of a prompt by the tier that they are found in. */
export interface ByTier {
  readonly gpu: number
  readonly host: number
  readonly disk: number
  readonly shared: number
}

/** What a block is worth where nothing is known of the tier's speed. */
const standardCredit = { host: 0.8, disk: 0.5, shared: 0.4 } as const

/** Prefill time of a token where nobody has learned it. */
const assumedMsPerToken = 1000 / 8000

/**
 * What blocks outside the GPU are worth: the time that finding them saves. Loading a token takes `bytesPerToken /
 * bytesPerSecond`, computing it the worker's prefill time, so that the tier's credit is
 *
 *     credit = max(0, 1 − load time / prefill time)
 *
 * The shared store is as near to one worker as to another. With L the worker's own blocks and P those that the store
 * holds from the first on, a worker gets L + s × max(0, P − L), s being the store's credit: at 0 the store is ignored, at 1
 * only load decides among workers within P.
 */
export class TierCredit {
  readonly #credit: Readonly<Record<'host' | 'disk' | 'shared', number | null>>
  readonly #loadMs: Readonly<Record<'host' | 'disk' | 'shared', number>>

  constructor(settings: TierSettings = {}) {
    const loadMs = ({ bytesPerSecond }: TierSpeed): number =>
      ((settings.bytesPerToken ?? NaN) / (bytesPerSecond ?? NaN)) * 1000
    const { host = {}, disk = {}, shared = {} } = settings
    this.#loadMs = { host: loadMs(host), disk: loadMs(disk), shared: loadMs(shared) }
    const fixed = (tier: 'host' | 'disk' | 'shared', { credit }: TierSpeed): number | null =>
      credit ?? (Number.isNaN(this.#loadMs[tier]) ? standardCredit[tier] : null)
    this.#credit = { host: fixed('host', host), disk: fixed('disk', disk), shared: fixed('shared', shared) }
  }

  /** Credit of a tier on a worker that computes a token in so many milliseconds. */
  of(tier: 'host' | 'disk' | 'shared', prefillMsPerToken = assumedMsPerToken): number {
    return this.#credit[tier] ?? Math.max(0, 1 - this.#loadMs[tier] / prefillMsPerToken)
  }

  /** Tokens on the GPU that would save as much time as these, of which at most `most` in all are used, the nearest first. */
  worth({ gpu, host, disk, shared }: ByTier, most: number, prefillMsPerToken?: number): number {
    const onGpu = Math.min(gpu, most)
    const onHost = Math.min(host, most - onGpu)
    const onDisk = Math.min(disk, most - onGpu - onHost)
    const inStore = Math.min(shared, most - onGpu - onHost - onDisk)
    if (onGpu === most) return most
    return (
      onGpu +
      onHost * this.of('host', prefillMsPerToken) +
      onDisk * this.of('disk', prefillMsPerToken) +
      inStore * this.of('shared', prefillMsPerToken)
    )
  }
}
