import { Candidates } from '../../src/routing/candidates.ts'
import type { Dispatch, PolicyRequest } from '../../src/routing/policy.ts'
import { InFlightCounters } from '../../src/workers/fleet.ts'
import { Standing } from '../../src/workers/standing.ts'
import { newAgreement } from '../../src/workers/agreement.ts'
import type { Worker } from '../../src/workers/worker.ts'

/** A healthy worker with sane defaults; a test states what it cares about. */
export function aWorker(index: number, given: Partial<Worker> = {}): Worker {
  return {
    id: `http://127.0.0.1:${8000 + index}`,
    origin: `http://127.0.0.1:${8000 + index}`,
    basePath: '',
    rank: null,
    slot: index,
    serial: index,
    pool: 'model',
    engine: 'vllm',
    headers: {},
    labels: {},
    standing: new Standing(true),
    blockSize: 16,
    capacityBlocks: 1000,
    load: null,
    degraded: null,
    chunks: null,
    lookedUp: null,
    exact: true,
    agreement: newAgreement(),
    ...given,
  }
}

export function aRequest(given: Partial<PolicyRequest> = {}): PolicyRequest {
  const promptTokens = given.promptTokens ?? 1000
  return {
    model: 'model',
    adapter: null,
    promptTokens,
    promptTokensEstimate: promptTokens,
    session: null,
    user: null,
    keyId: 'anonymous',
    keys: () => new Uint32Array(0),
    header: () => null,
    priority: 0,
    stream: true,
    maxTokens: null,
    ...given,
  }
}

export function aDispatch(given: Partial<Dispatch> = {}): Dispatch {
  return {
    serial: 0,
    promptTokens: 1000,
    uncachedTokens: 1000,
    prefillTokensAhead: 0,
    requestsAhead: 0,
    stream: true,
    atMs: 0,
    keys: null,
    adapter: null,
    session: null,
    maxTokens: null,
    ...given,
  }
}

/** Candidates from workers, their matched gpu blocks and the blocks that are coming behind these. */
export function candidatesOf(
  workers: readonly Worker[],
  counters: InFlightCounters,
  gpuBlocks: readonly number[] = [],
  promptTokens = 1000,
  comingBlocks: readonly number[] = [],
  adapter: string | null = null,
): Candidates {
  const candidates = new Candidates(64)
  const match = {
    gpu: new Uint32Array(64),
    host: new Uint32Array(64),
    disk: new Uint32Array(64),
    shared: new Uint32Array(64),
    coming: new Uint32Array(64),
  }
  match.gpu.set(gpuBlocks)
  match.coming.set(comingBlocks)
  candidates.gather(workers, counters, match, { nowMs: 0, staleLoadMs: 1000, promptTokens, adapter })
  return candidates
}
