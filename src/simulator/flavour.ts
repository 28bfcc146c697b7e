import type { FastifyInstance } from 'fastify'
import type { Clock } from '../zmtp/clock.ts'
import type { ApiError } from './api-error.ts'
import type { BlockHash } from './block-hash.ts'
import type { EngineDrive } from './engine-drive.ts'
import type { EngineOptions } from './engine-options.ts'
import type { Given, Option } from './given.ts'
import type { KvEvent } from './kv-event.ts'
import type { Ports } from './ports.ts'
import type { Serving, ServingOptions } from './serving.ts'

/**
 * What one kind of engine adds to a simulated worker: how its KV events leave it, its HTTP surface, and what it is unless
 * told otherwise. The engine's cache and scheduling are the same for all kinds.
 */
export interface Flavour {
  readonly name: string
  /** Where its engine differs from `engineDefaults`. */
  readonly engine: Partial<EngineOptions>
  /** Opens what a life of the process needs besides HTTP. Rejects with PORT_IN_USE, and nothing is left open. */
  open(life: LifeOptions): Promise<Surface>
}

/** A flavour as `simulate --engine` knows it. A new one is a file under flavours/ and a line in flavours.ts. */
export interface FlavourKind {
  /** What --prefix-caching-hash-algo may be; the first is the default. */
  readonly blockHashes: Readonly<Record<string, BlockHash>>
  /** Options of `simulate` that only this kind of engine has. */
  readonly options: Readonly<Record<string, Option>>
  create(given: Given): Flavour
}

/** What a flavour is told of a life of the process. */
export interface LifeOptions {
  readonly model: string
  /** The engine of each data-parallel rank. */
  readonly ranks: readonly EngineDrive[]
  readonly ports: Ports
  /** Null: engines that were started without KV events. */
  readonly events: EventOptions | null
  readonly clock: Clock
  readonly random: () => number
  readonly wallSeconds: () => number
  readonly startedSeconds: number
}

export interface EventOptions {
  readonly topic: string
  /** `int`: whole numbers of 64 bits; `bytes`: digests, where the engine can publish them. */
  readonly hashes: 'int' | 'bytes'
  /** Batches that can still be had after they were sent. */
  readonly bufferSteps: number
}

/** What a flavour has open for one life of the process. */
export interface Surface {
  /** By rank; empty without events. */
  readonly outlets: readonly EventOutlet[]
  /** Where else than by HTTP rank 0 can be heard: a word and an endpoint each. */
  readonly places: Readonly<Record<string, string>>
  /** Adds the paths of this kind of engine. */
  addRoutes(app: FastifyInstance, serving: Serving, options: SurfaceOptions): void
  /** The body of a refusal; left out: vLLM's form. */
  readonly refusal?: (fault: ApiError) => object
  /** The load is published no more, though the engine goes on; left out: it never is. */
  readonly silenceLoad?: () => void
  close(): Promise<void>
  /** As `close`, with every connection cut first as by a crash. */
  kill(): Promise<void>
}

/** What a flavour's paths may need beyond what answering takes. */
export interface SurfaceOptions extends ServingOptions {
  readonly startedSeconds: number
  /** Responses kept for those that go on from them. */
  readonly storedResponses: number
  /** vLLM's --enable-scale-out: whether prompts may come as token ids. */
  readonly scaleOut: boolean
}

/** A rank's way out for its KV events, with the mishaps that can befall them. */
export interface EventOutlet {
  /** The number that the next batch (or event, where these are numbered) will bear. */
  readonly nextSequence: number
  /** Who is told of events as they come; 0 where events are fetched. */
  readonly subscribers: number
  publish(events: readonly KvEvent[]): void
  /** The next batches are numbered and never seen, unless somebody asks for them again. */
  dropNext(batches: number): void
  /** What was sent or dropped cannot be had again. */
  forgetBuffer(): void
  /** Holds events back. */
  pause(): void
  /** Lets out what was held back, in order. */
  resume(): void
}
