import type { TierSettings } from '../routing/tier-credit.ts'
import type { EngineOptions } from '../simulator/engine-options.ts'
import type { TrueMatch } from '../simulator/tiered-cache.ts'
import { keyOf } from '../simulator/host-cache.ts'
import { SharedStore } from '../simulator/shared-store.ts'
import type { Calibration } from './calibration.ts'

/** Caches beside the GPU's. */
export interface TierOptions {
  /** Of each worker. */
  readonly hostBlocks?: number
  readonly diskBlocks?: number
  /** Of the store that all workers reach. */
  readonly sharedBlocks?: number
  /** Workers of a node share its disk and its network. Default 1. */
  readonly workersPerNode?: number
  /** What a block in the shared store counts for the router, as a share of one on the GPU; default: what its speed makes of it. */
  readonly sharedCredit?: number
}

/** Bytes of keys and values that were moved. */
export interface BytesMoved {
  host: number
  disk: number
  /** From the shared store to a node, and of these what another node had brought there. */
  shared: number
  betweenNodes: number
  toShared: number
}

/** Something that one transfer uses at a time: the next one waits until it is free. */
export class Link {
  readonly #bytesPerMs: number
  #freeAtMs = 0

  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / 1000
  }

  /** How long it takes from now until so many bytes are there. */
  takeMs(bytes: number, nowMs: number): number {
    this.#freeAtMs = Math.max(nowMs, this.#freeAtMs) + bytes / this.#bytesPerMs
    return this.#freeAtMs - nowMs
  }
}

/** The tiers of a run's engines: sizes, the store between them, and the links that loads queue for. */
export class Tiers {
  readonly moved: BytesMoved = { host: 0, disk: 0, shared: 0, betweenNodes: 0, toShared: 0 }
  readonly store: SharedStore | null
  readonly #options: TierOptions
  readonly #calibration: Calibration
  /** By block in the shared store, the node that brought it; those that left it stay, as a later one takes their place. */
  readonly #nodes = new Map<number, number>()
  readonly #hosts = new Map<number, Link>()
  readonly #disks = new Map<number, Link>()
  readonly #networks = new Map<number, Link>()

  constructor(options: TierOptions, calibration: Calibration) {
    const { sharedBlocks = 0 } = options
    this.#options = options
    this.#calibration = calibration
    this.store =
      sharedBlocks === 0 ? null : new SharedStore({ capacityChunks: sharedBlocks, chunkTokens: calibration.blockSize })
  }

  /** What the engine of a worker is told of its tiers. */
  engineOptions(worker: number): Partial<EngineOptions> {
    const { hostBlocks = 0, diskBlocks = 0 } = this.#options
    return {
      ...{ hostBlocks, diskBlocks, sharedStore: this.store },
      loadMs: (tier, blocks, nowMs) => this.#loadMs(worker, tier, blocks, nowMs),
      ...(this.store === null ? {} : { onShared: (...told) => this.#shared(this.nodeOf(worker), ...told) }),
    }
  }

  /** Remembers which node brought a block. */
  #shared(node: number, kind: 'loaded' | 'put', low: number, high: number): void {
    const key = keyOf(low, high)
    if (kind === 'put') {
      this.#nodes.set(key, node)
      this.moved.toShared += this.#bytesOf(1)
    } else if (this.#nodes.get(key) !== node) this.moved.betweenNodes += this.#bytesOf(1)
  }

  /** What the router is told: speeds, from which it makes its credits, or the credit itself. */
  get settings(): TierSettings {
    const { kvBytesPerToken, hostBytesPerSecond, diskBytesPerSecond, sharedBytesPerSecond } = this.#calibration
    const { sharedCredit } = this.#options
    return {
      bytesPerToken: kvBytesPerToken,
      host: { bytesPerSecond: hostBytesPerSecond },
      disk: { bytesPerSecond: diskBytesPerSecond },
      shared: sharedCredit === undefined ? { bytesPerSecond: sharedBytesPerSecond } : { credit: sharedCredit },
    }
  }

  /** How long loading takes where nothing else is loaded: what an all-knowing router would reckon with. */
  idleLoadMs({ host, disk = 0, shared }: TrueMatch): number {
    const { hostBytesPerSecond, diskBytesPerSecond, sharedBytesPerSecond } = this.#calibration
    const seconds = host / hostBytesPerSecond + disk / diskBytesPerSecond + shared / sharedBytesPerSecond
    return this.#bytesOf(seconds * 1000)
  }

  nodeOf(worker: number): number {
    return Math.floor(worker / (this.#options.workersPerNode ?? 1))
  }

  #bytesOf(blocks: number): number {
    return blocks * this.#calibration.blockSize * this.#calibration.kvBytesPerToken
  }

  #loadMs(worker: number, tier: 'host' | 'disk' | 'shared', blocks: number, nowMs: number): number {
    const { hostBytesPerSecond, diskBytesPerSecond, sharedBytesPerSecond } = this.#calibration
    const bytes = this.#bytesOf(blocks)
    this.moved[tier] += bytes
    switch (tier) {
      case 'host':
        return linkOf(this.#hosts, worker, hostBytesPerSecond).takeMs(bytes, nowMs)
      case 'disk':
        return linkOf(this.#disks, this.nodeOf(worker), diskBytesPerSecond).takeMs(bytes, nowMs)
      case 'shared':
        return linkOf(this.#networks, this.nodeOf(worker), sharedBytesPerSecond).takeMs(bytes, nowMs)
      default:
        return tier satisfies never
    }
  }
}

function linkOf(links: Map<number, Link>, place: number, bytesPerSecond: number): Link {
  let link = links.get(place)
  if (link === undefined) links.set(place, (link = new Link(bytesPerSecond)))
  return link
}
