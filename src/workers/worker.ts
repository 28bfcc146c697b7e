import { RouterError } from '../errors.ts'
import type { Agreement } from './agreement.ts'
import type { MeasuredLoad } from './load.ts'
import type { Standing } from './standing.ts'

export type { MeasuredLoad } from './load.ts'

/**
 * Why a worker gets no credit for its cache although it serves requests; `wrong_model`: why it serves none, since its
 * engine has another model than its pool.
 */
export type Degradation =
  'block_size_unknown' | 'tokenizer_differs' | 'predictions_fail' | 'events_silent' | 'wrong_model'

/** A store beside the engines' own blocks, with a place in the map and a block size of its own. */
export interface StoreRef {
  /** Index into the map, behind those of workers. */
  readonly slot: number
  readonly blockSize: number
}

/**
 * One engine endpoint that can serve a request: URL + data-parallel rank. Thread 0 owns and changes it; the request path
 * reads it.
 */
export interface Worker {
  /** `scheme://host:port[/path][#rank]`, the worker's name everywhere (decision 23). */
  readonly id: string
  readonly origin: string
  /** Path before the engine's own, without a trailing slash; mostly empty. */
  readonly basePath: string
  readonly rank: number | null
  /** Index into the map and the fleet's counters. */
  readonly slot: number
  /** Counts all workers ever known; never reused, unlike the slot. */
  readonly serial: number
  readonly pool: string
  /** Which kind of engine it is; `unknown` until it has been recognized. */
  engine: string
  /** Headers added to every request to this worker, lower-case names; `authorization` replaces the client's. */
  headers: Readonly<Record<string, string>>
  labels: Readonly<Record<string, string>>
  readonly standing: Standing
  blockSize: number | null
  /** The block size of the events of the engine's present process, which settles it; absent before the first. */
  announcedBlockSize?: number
  capacityBlocks: number | null
  load: MeasuredLoad | null
  degraded: Degradation | null
  /** Model names that the engine answers to; absent until it has told them. */
  models?: ReadonlySet<string>
  /** OpenAI's usage says nothing of cached tokens where none were cached, and tells them where some were. */
  omitsMisses?: boolean
  /** What the worker holds in chunks of another size than its engine's blocks, if it does. */
  chunks: StoreRef | null
  /** What a chunk store's directory says that the worker holds: a hint, not what its events told. */
  lookedUp: StoreRef | null
  /** True where the map knows the worker's cache from its events. */
  exact: boolean
  agreement: Agreement
}

export interface WorkerAddress {
  readonly id: string
  readonly origin: string
  readonly basePath: string
  /** `authorization` made from credentials in the URL, if any. */
  readonly headers: Readonly<Record<string, string>>
}

/**
 * The canonical name of a worker (decision 23): lower-case host, explicit port, no user info, no trailing slash.
 * Throws RouterError CONFIG_INVALID.
 */
export function workerAddress(url: string, rank: number | null): WorkerAddress {
  if (!URL.canParse(url)) throw new RouterError('CONFIG_INVALID', `"${url}" is not a URL; write it as http://HOST:PORT`)
  const parsed = new URL(url)
  if (parsed.protocol !== 'http:' && parsed.protocol !== 'https:') {
    throw new RouterError('CONFIG_INVALID', `"${url}" is neither http nor https`)
  }
  const port = parsed.port === '' ? (parsed.protocol === 'https:' ? '443' : '80') : parsed.port
  const origin = `${parsed.protocol}//${parsed.hostname.toLowerCase()}:${port}`
  const basePath = parsed.pathname.replace(/\/+$/, '')
  const user = decodeURIComponent(parsed.username)
  const password = decodeURIComponent(parsed.password)
  const headers: Record<string, string> =
    user === '' && password === ''
      ? {}
      : { authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}` }
  return { id: `${origin}${basePath}${rank === null ? '' : `#${rank}`}`, origin, basePath, headers }
}
