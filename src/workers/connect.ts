import { readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'
import { buildConnector } from 'undici'
import { RouterError } from '../errors.ts'
import { workerAddress } from './worker.ts'

/** TLS towards an engine: files, as the config names them. */
export interface WorkerTls {
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly serverName?: string
  readonly insecure?: boolean
}

interface Known {
  readonly given: WorkerTls
  readonly options: buildConnector.BuildOptions
}

/**
 * How connections to each engine are made: one place for the requests of clients and for the router's own questions, so
 * that an engine whose health is checked over TLS is never spoken to without.
 */
export class WorkerConnections {
  readonly #known = new Map<string, Known>()

  /**
   * From now on connections to this origin are made with these options; null: as Node does by itself. Open ones stay.
   * Throws RouterError CONFIG_UNREADABLE or CONFIG_INVALID, and nothing has changed then.
   */
  use(url: string, tls: WorkerTls | null): void {
    const { origin } = workerAddress(url, null)
    if (tls === null) this.#known.delete(origin)
    else this.#known.set(origin, { given: tls, options: connectionOptions(tls) })
  }

  /** Reads all files again, for certificates that were renewed; the answer uses them. Throws as `use` does. */
  renewed(): () => void {
    const fresh = [...this.#known].map(
      ([origin, { given }]) => [origin, { given, options: connectionOptions(given) }] as const,
    )
    return () => {
      for (const [origin, known] of fresh) this.#known.set(origin, known)
    }
  }

  /** What undici connects with. It looks at each connection what holds for the origin by then. */
  connector(url: string, timeoutMs: number): buildConnector.connector {
    const { origin } = workerAddress(url, null)
    let usedFor: Known | undefined
    let connect = buildConnector({ timeout: timeoutMs, allowH2: false })
    return (options, callback) => {
      const known = this.#known.get(origin)
      if (known !== usedFor) {
        connect = buildConnector({ ...known?.options, timeout: timeoutMs, allowH2: false })
        usedFor = known
      }
      const servername = known?.given.serverName ?? options.servername
      connect({ ...options, ...(servername === undefined ? {} : { servername }) }, callback)
    }
  }
}

/** Throws RouterError CONFIG_UNREADABLE or CONFIG_INVALID where `use` would. */
export function checkWorkerTls(tls: WorkerTls): void {
  connectionOptions(tls)
}

function connectionOptions(tls: WorkerTls): buildConnector.BuildOptions {
  const files = {
    ...(tls.ca === undefined ? {} : { ca: fileOf(tls.ca, 'tls.ca') }),
    ...(tls.cert === undefined ? {} : { cert: fileOf(tls.cert, 'tls.cert') }),
    ...(tls.key === undefined ? {} : { key: fileOf(tls.key, 'tls.key') }),
  }
  try {
    createSecureContext(files)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new RouterError('CONFIG_INVALID', `tls of a worker: the files make no certificate: ${reason}`, { cause })
  }
  return { ...files, rejectUnauthorized: tls.insecure !== true }
}

function fileOf(path: string, option: string): Buffer {
  try {
    return readFileSync(path)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new RouterError('CONFIG_UNREADABLE', `${option} of a worker: cannot read the file: ${reason}`, { cause })
  }
}
