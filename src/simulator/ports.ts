/** A worker's ports by purpose and rank. What the system chose is kept, so that a restarted process is found again. */
export class Ports {
  readonly host: string
  readonly #first: Readonly<Record<string, number>>
  readonly #kept = new Map<string, number>()

  /**
   * @param host the address that is listened on
   * @param first port of rank 0 by purpose, the other ranks' follow; 0 or absent: the system chooses each
   */
  constructor(host: string, first: Readonly<Record<string, number>>) {
    this.host = host
    this.#first = first
  }

  /** The port to bind, and once it is bound the port that it is; 0: any. */
  of(purpose: string, rank = 0): number {
    const first = this.#first[purpose] ?? 0
    return this.#kept.get(`${purpose} ${rank}`) ?? (first === 0 ? 0 : first + rank)
  }

  /** Host and port as others on this machine reach them. */
  reachable(purpose: string, rank = 0): string {
    const { host } = this
    const name = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host.includes(':') ? `[${host}]` : host
    return `${name}:${this.of(purpose, rank)}`
  }

  keep(purpose: string, rank: number, port: number): void {
    this.#kept.set(`${purpose} ${rank}`, port)
  }

  /** The system's choice, or another one, is to be made again. */
  forget(purpose: string): void {
    for (const name of this.#kept.keys()) if (name.startsWith(`${purpose} `)) this.#kept.delete(name)
  }
}
