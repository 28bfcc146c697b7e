/** Requests of one replica that are followed at a time; the oldest is given up first. */
const mostUnderWay = 4096

/** What is known of the requests that other replicas have under way, by replica and by their numbers there. */
export class ReplicaRequests<Entry> {
  readonly #ended: (entry: Entry) => void
  readonly #byReplica = new Map<string, Map<number, Entry>>()

  /** @param ended hears of each that ends here, in whatever way, but of none that is only dropped */
  constructor(ended: (entry: Entry) => void) {
    this.#ended = ended
  }

  get count(): number {
    let count = 0
    for (const entries of this.#byReplica.values()) count += entries.size
    return count
  }

  get(replica: string, number: number): Entry | undefined {
    return this.#byReplica.get(replica)?.get(number)
  }

  add(replica: string, number: number, entry: Entry): void {
    const entries = this.#byReplica.get(replica) ?? new Map<number, Entry>()
    this.#byReplica.set(replica, entries)
    entries.set(number, entry)
    if (entries.size <= mostUnderWay) return
    const [oldest] = entries.keys()
    if (oldest !== undefined) this.end(replica, oldest)
  }

  end(replica: string, number: number): void {
    const entry = this.get(replica, number)
    if (entry === undefined) return
    this.drop(replica, number)
    this.#ended(entry)
  }

  drop(replica: string, number: number): void {
    this.#byReplica.get(replica)?.delete(number)
  }

  /** Ends all of a replica. */
  forget(replica: string): void {
    for (const number of this.#byReplica.get(replica)?.keys() ?? []) this.end(replica, number)
    this.#byReplica.delete(replica)
  }

  /** Ends all of which this is true. */
  endWhere(isOver: (entry: Entry) => boolean): void {
    for (const [replica, entries] of this.#byReplica)
      for (const [number, entry] of entries) if (isOver(entry)) this.end(replica, number)
  }

  /** Ends each replica's oldest ones, up to the first of which this is not true. */
  endOldest(isOver: (entry: Entry) => boolean): void {
    for (const [replica, entries] of this.#byReplica) {
      for (const [number, entry] of entries) {
        if (!isOver(entry)) break
        this.end(replica, number)
      }
    }
  }
}
