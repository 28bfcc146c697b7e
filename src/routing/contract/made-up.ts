import type { Dispatch, PolicyFleet, PolicyMatch, PolicyRequest } from '../policy.ts'

/** Places behind the candidates of which nothing may be written. */
export const margin = 4
/** What stands there, and in results that nobody wrote. */
export const canary = -12_345.5

/** A counter run through a 32-bit finalizer; equal seeds make equal streams. Uniform in [0, 1). */
export function streamOf(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x9e3779b9) | 0
    let x = state
    x = Math.imul(x ^ (x >>> 16), 0x21f0aaad)
    x = Math.imul(x ^ (x >>> 15), 0x735a2d97)
    return ((x ^ (x >>> 15)) >>> 0) / 4294967296
  }
}

/** Everything that a plugin sees of one decision. */
export interface MadeUp {
  readonly request: PolicyRequest
  readonly fleet: PolicyFleet
  readonly match: PolicyMatch
  /** Of all arrays that plugins must not write to, by name. */
  readonly arrays: Readonly<Record<string, Int32Array | Float64Array | Uint32Array | Uint8Array>>
}

const blockSize = 16

/** A decision among `serials.length` workers, with all that may occur: unknown figures, empty prompts, degraded workers. */
export function madeUp(serials: readonly number[], random: () => number): MadeUp {
  const count = serials.length
  const below = (limit: number): number => Math.floor(random() * limit)
  const room = count + margin
  const reals = (of: (i: number) => number): Float64Array =>
    Float64Array.from({ length: room }, (_, i) => (i < count ? of(i) : 0))
  const wholes = (of: (i: number) => number): Int32Array => Int32Array.from(reals(of))
  const unsigned = (of: (i: number) => number): Uint32Array => Uint32Array.from(reals(of))
  const promptTokens = random() < 0.1 ? 0 : 1 + below(20_000)
  const promptBlocks = Math.floor(Math.max(0, promptTokens - 1) / blockSize)
  const tells = Array.from({ length: count }, () => random() < 0.8)
  const gpu = unsigned(() => (random() < 0.5 ? 0 : below(promptBlocks + 1)))
  const left = (i: number): number => promptBlocks - (gpu[i] as number)
  const host = unsigned((i) => (random() < 0.8 ? 0 : below(left(i) + 1)))
  const none = unsigned(() => 0)
  const cachedTokens = reals((i) => ((gpu[i] as number) + (host[i] as number)) * blockSize)
  const keys = Uint32Array.from({ length: 2 * promptBlocks }, () => below(2 ** 32))
  const arrays = {
    serials: wholes((i) => serials[i] as number),
    requests: wholes(() => below(40)),
    prefillTokens: wholes(() => below(40_000)),
    decodeBlocks: wholes(() => below(4_000)),
    running: reals((i) => (tells[i] === true ? below(40) : NaN)),
    waiting: reals((i) => (tells[i] === true ? below(10) : NaN)),
    kvUsage: reals((i) => (tells[i] === true ? random() : NaN)),
    foreignRequests: reals(() => below(3)),
    foreignWaiting: reals(() => below(2)),
    loadAgeMs: reals((i) => (tells[i] === true ? below(10_000) : NaN)),
    capacityBlocks: reals(() => (random() < 0.2 ? 0 : 1_000 + below(50_000))),
    blockSize: reals(() => blockSize),
    hasAdapter: Uint8Array.from(wholes(() => below(2))),
    gpu,
    host,
    disk: none,
    shared: none,
    cachedTokens,
    comingTokens: reals(() => 0),
    exact: Uint8Array.from(wholes(() => below(2))),
  }
  return {
    request: {
      model: 'model',
      adapter: random() < 0.2 ? 'adapter' : null,
      promptTokens,
      promptTokensEstimate: promptTokens === 0 ? 1 + below(5_000) : promptTokens,
      session: random() < 0.5 ? `session ${below(50)}` : null,
      user: random() < 0.2 ? `user ${below(5)}` : null,
      keyId: `key ${below(3)}`,
      priority: below(3),
      stream: random() < 0.8,
      maxTokens: random() < 0.5 ? below(2_000) : null,
      keys: (size) => (size === blockSize ? keys : new Uint32Array(0)),
      header: () => null,
    },
    fleet: {
      ...{ ...arrays, count },
      ids: serials.map((serial) => `http://worker-${serial}:8000`),
      labels: serials.map((serial) => ({ zone: serial % 2 === 0 ? 'a' : 'b' })),
    },
    match: {
      ...arrays,
      creditTokens: (i) => (gpu[i] as number) * blockSize + 0.8 * (host[i] as number) * blockSize,
    },
    arrays,
  }
}

export function dispatchOf({ request, fleet, match }: MadeUp, chosen: number, atMs: number): Dispatch {
  return {
    serial: fleet.serials[chosen] as number,
    promptTokens: request.promptTokens,
    uncachedTokens: request.promptTokens - (match.cachedTokens[chosen] as number),
    prefillTokensAhead: fleet.prefillTokens[chosen] as number,
    requestsAhead: fleet.requests[chosen] as number,
    stream: request.stream,
    atMs,
    keys: request.keys(blockSize),
    adapter: request.adapter,
    session: request.session,
    maxTokens: request.maxTokens,
  }
}
