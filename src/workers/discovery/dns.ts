import { Resolver } from 'node:dns/promises'
import type { Discovery, Findings } from './discovery.ts'

export interface DnsOptions {
  readonly name: string
  readonly type: 'A' | 'AAAA' | 'SRV'
  /** Of every engine; SRV records bring their own. */
  readonly port?: number | undefined
  readonly scheme: 'http' | 'https'
  readonly intervalMs: number
  readonly timeoutMs: number
  /** Addresses of DNS servers, `IP` or `IP:port`; absent: the system's. */
  readonly servers?: readonly string[] | undefined
}

export interface FoundAddress {
  readonly url: string
}

/**
 * Engines behind a DNS name. An answer without any is a fault, not an order to have none: a name may be gone for a moment
 * while what it named serves on.
 */
export class DnsDiscovery implements Discovery {
  readonly #o: DnsOptions
  readonly #findings: Findings<FoundAddress>
  readonly #resolver: Resolver
  #timer: NodeJS.Timeout | null = null
  #stopped = false

  constructor(options: DnsOptions, findings: Findings<FoundAddress>) {
    this.#o = options
    this.#findings = findings
    this.#resolver = new Resolver({ timeout: options.timeoutMs, tries: 2 })
    if (options.servers !== undefined) this.#resolver.setServers(options.servers)
  }

  start(): void {
    void this.#look()
  }

  stop(): void {
    this.#stopped = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#resolver.cancel()
  }

  async #look(): Promise<void> {
    try {
      const urls = [...new Set(await this.#urls())].sort()
      if (this.#isStopped()) return
      if (urls.length === 0) this.#findings.failed(`no address for ${this.#o.name}`)
      else this.#findings.found(urls.map((url) => ({ url })))
    } catch (error) {
      if (this.#isStopped()) return
      this.#findings.failed(`${this.#o.type} ${this.#o.name}: ${codeOf(error)}`)
    }
    this.#timer = setTimeout(() => void this.#look(), this.#o.intervalMs)
    this.#timer.unref()
  }

  async #urls(): Promise<string[]> {
    const { name, type, port } = this.#o
    if (type === 'SRV') return this.#services(name)
    const addresses = await (type === 'A' ? this.#resolver.resolve4(name) : this.#resolver.resolve6(name))
    return addresses.map((address) => this.#url(address, port))
  }

  /** Those of the lowest priority number; the others stand by for them (RFC 2782). */
  async #services(name: string): Promise<string[]> {
    const records = await this.#resolver.resolveSrv(name)
    const first = Math.min(...records.map(({ priority }) => priority))
    const urls = await Promise.all(
      records
        .filter(({ priority }) => priority === first)
        .map(async (record) => (await this.#addresses(record.name)).map((address) => this.#url(address, record.port))),
    )
    return urls.flat()
  }

  /** None for a name that is not there: its engine has just left. */
  async #addresses(name: string): Promise<string[]> {
    const orNone = (error: unknown): string[] => {
      if (absent.has(codeOf(error))) return []
      throw error
    }
    const four = await this.#resolver.resolve4(name).catch(orNone)
    return four.length > 0 ? four : this.#resolver.resolve6(name).catch(orNone)
  }

  #url(address: string, port: number | undefined): string {
    const host = address.includes(':') ? `[${address}]` : address
    return `${this.#o.scheme}://${host}${port === undefined ? '' : `:${port}`}`
  }

  /** Read through a call, since it may change while an `await` waits. */
  #isStopped(): boolean {
    return this.#stopped
  }
}

const absent: ReadonlySet<string> = new Set(['ENOTFOUND', 'ENODATA'])

function codeOf(error: unknown): string {
  return (error as { code?: string }).code ?? String(error)
}
