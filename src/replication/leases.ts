import type { RedisCommands } from './redis-commands.ts'
import { preferredOwner } from './rendezvous.ts'

export interface LeasesOptions {
  readonly commands: Pick<RedisCommands, 'get' | 'setIfAbsent' | 'expire' | 'delete'>
  /** The key of a name's lease. */
  readonly key: (name: string) => string
  /** Our own id. */
  readonly replica: string
  /** Ids of the replicas that are there, our own among them or not. */
  readonly replicas: () => Iterable<string>
  /** Life of a lease that is not renewed; renewed four times in this time. */
  readonly leaseMs: number
  /** Milliseconds of a monotonic clock. */
  readonly clock: () => number
  readonly onAcquired: (name: string) => void
  /** We must not act as the holder any more, whatever Redis says. Not told of what we give up ourselves. */
  readonly onLost: (name: string) => void
}

/** What is known of one name that is wanted. */
interface Claim {
  /** By our clock; 0: not held. */
  heldUntilMs: number
  /** Not tried before this time. */
  pausedUntilMs: number
  /** The last round found no holder. */
  wasFree: boolean
  /** Who held it when we last saw a holder. */
  lastHolder: string | null
  /** Since when it is held by nobody who is there; 0: it is not. */
  orphanedSinceMs: number
}

const roundsPerLease = 4
/** A lease whose holder is not there ran out long before; one that did not was caught by a jump of Redis' clock. */
const orphanedLeases = 2

/**
 * Leases on names: at most one replica holds one, and another takes over when its holder dies. A lease counts from the
 * moment when its renewal was sent, by our own monotonic clock: no clock of Redis and no wall clock is ever compared.
 *
 * Renewing asks for the holder and prolongs in one go, without a script. Between two rounds a lease that ran out unseen may
 * have two holders; what they do must bear that (sessions in the log do).
 */
export class Leases {
  readonly #o: LeasesOptions
  readonly #claims = new Map<string, Claim>()
  #round: Promise<void> | null = null
  #ticking: NodeJS.Timeout | undefined
  #expiry: NodeJS.Timeout | undefined

  constructor(options: LeasesOptions) {
    this.#o = options
  }

  /** From now on this name's lease is sought, or given up. */
  want(name: string, wanted: boolean): void {
    const claim = this.#claims.get(name)
    if (wanted && claim === undefined)
      this.#claims.set(name, { heldUntilMs: 0, pausedUntilMs: 0, wasFree: false, lastHolder: null, orphanedSinceMs: 0 })
    if (!wanted && claim !== undefined) {
      this.#claims.delete(name)
      if (this.#isHeld(claim)) void this.#giveUp([name])
    }
  }

  holds(name: string): boolean {
    const claim = this.#claims.get(name)
    return claim !== undefined && this.#isHeld(claim)
  }

  held(): string[] {
    return [...this.#claims].filter(([, claim]) => this.#isHeld(claim)).map(([name]) => name)
  }

  /** Leaves it to others: given up now if held, and not sought again for a while. */
  release(name: string, pauseMs: number): void {
    const claim = this.#claims.get(name)
    if (claim === undefined) return
    const wasHeld = this.#isHeld(claim)
    claim.heldUntilMs = 0
    claim.wasFree = false
    claim.pausedUntilMs = this.#o.clock() + pauseMs
    if (wasHeld) void this.#giveUp([name])
  }

  start(): void {
    const everyMs = this.#o.leaseMs / roundsPerLease
    this.#ticking = setInterval(() => void this.tick(), everyMs)
    void this.tick()
  }

  /** Gives up everything, so that others need not wait for it to run out. */
  async stop(): Promise<void> {
    clearInterval(this.#ticking)
    clearTimeout(this.#expiry)
    const names = this.held()
    this.#claims.clear()
    await this.#round
    await this.#giveUp(names)
  }

  /** One round: renews, notices losses, takes what is free. A round that is still under way goes on instead. */
  async tick(): Promise<void> {
    this.#expire()
    this.#round ??= this.#go().finally(() => (this.#round = null))
    await this.#round
  }

  async #go(): Promise<void> {
    const names = [...this.#claims.keys()]
    const held = this.held()
    const sentMs = this.#o.clock()
    try {
      const [holders, renewed] = await Promise.all([
        this.#o.commands.get(names.map(this.#o.key)),
        this.#o.commands.expire(held.map(this.#o.key), this.#o.leaseMs),
      ])
      const prolonged = new Set(held.filter((_, at) => renewed[at] === true))
      const free = names.filter((name, at) => {
        const holder = holders[at]?.toString() ?? null
        return this.#learn(name, holder, prolonged.has(name), sentMs)
      })
      await this.#take(free)
      await this.#o.commands.expire(this.#orphans(names, holders).map(this.#o.key), this.#o.leaseMs)
    } catch {
      // The link has counted it. What cannot be renewed runs out by our own clock.
    }
    this.#arm()
  }

  /** Takes in who held a name when we asked; whether we may try for it now. */
  #learn(name: string, holder: string | null, prolonged: boolean, sentMs: number): boolean {
    const claim = this.#claims.get(name)
    if (claim === undefined) return false
    const nowMs = this.#o.clock()
    claim.lastHolder = holder ?? claim.lastHolder
    if (claim.heldUntilMs > 0) {
      const untilMs = sentMs + this.#o.leaseMs
      if (holder === this.#o.replica && prolonged && untilMs > nowMs) claim.heldUntilMs = untilMs
      else this.#lose(name, claim)
      return false
    }
    if (nowMs < claim.pausedUntilMs) return false
    // Ours without our knowing: the answer to a try was lost. It runs out, and is then as free as any other.
    const isFree = holder === null
    const mayTry = isFree && (claim.wasFree || this.#isPreferred(name, claim.lastHolder))
    claim.wasFree = isFree
    return mayTry
  }

  async #take(names: readonly string[]): Promise<void> {
    if (names.length === 0) return
    const sentMs = this.#o.clock()
    const taken = await this.#o.commands.setIfAbsent(names.map(this.#o.key), this.#o.replica, this.#o.leaseMs)
    const unwanted: string[] = []
    for (const [at, name] of names.entries()) {
      if (taken[at] !== true) continue
      const claim = this.#claims.get(name)
      if (claim === undefined || this.#o.clock() < claim.pausedUntilMs) unwanted.push(name)
      else if (sentMs + this.#o.leaseMs > this.#o.clock()) {
        claim.heldUntilMs = sentMs + this.#o.leaseMs
        claim.wasFree = false
        this.#o.onAcquired(name)
      }
    }
    await this.#giveUp(unwanted)
  }

  /**
   * Leases that will not run out: Redis keeps their end by its wall clock, and was set back just before the holder died.
   * Each gets a new end; where its holder lives after all, that changes nothing.
   */
  #orphans(names: readonly string[], holders: readonly (Buffer | null)[]): string[] {
    const nowMs = this.#o.clock()
    const replicas = new Set(this.#o.replicas())
    return names.filter((name, at) => {
      const claim = this.#claims.get(name)
      const holder = holders[at]?.toString() ?? null
      if (claim === undefined) return false
      const isOrphaned =
        holder !== null && !this.#isHeld(claim) && (holder === this.#o.replica || !replicas.has(holder))
      if (!isOrphaned) claim.orphanedSinceMs = 0
      else if (claim.orphanedSinceMs === 0) claim.orphanedSinceMs = nowMs
      if (!isOrphaned || nowMs - claim.orphanedSinceMs < orphanedLeases * this.#o.leaseMs) return false
      claim.orphanedSinceMs = 0
      return true
    })
  }

  /** The first choice tries at once, the others give it a round. Whoever let go of it, or died, is no choice. */
  #isPreferred(name: string, lastHolder: string | null): boolean {
    const { replica } = this.#o
    const choices = new Set([...this.#o.replicas(), replica])
    if (lastHolder !== null) choices.delete(lastHolder)
    const preferred = preferredOwner(name, choices)
    return preferred === null || preferred === replica
  }

  #isHeld(claim: Claim): boolean {
    return claim.heldUntilMs > this.#o.clock()
  }

  #lose(name: string, claim: Claim): void {
    claim.heldUntilMs = 0
    claim.wasFree = false
    this.#o.onLost(name)
  }

  #expire(): void {
    const nowMs = this.#o.clock()
    for (const [name, claim] of this.#claims) {
      if (claim.heldUntilMs > 0 && claim.heldUntilMs <= nowMs) this.#lose(name, claim)
    }
  }

  #arm(): void {
    clearTimeout(this.#expiry)
    let soonestMs = Infinity
    for (const { heldUntilMs } of this.#claims.values()) {
      if (heldUntilMs > 0) soonestMs = Math.min(soonestMs, heldUntilMs)
    }
    if (soonestMs === Infinity || this.#ticking === undefined) return
    this.#expiry = setTimeout(
      () => {
        this.#expire()
        this.#arm()
      },
      Math.max(1, soonestMs - this.#o.clock()),
    )
  }

  async #giveUp(names: readonly string[]): Promise<void> {
    try {
      await this.#o.commands.delete(names.map(this.#o.key))
    } catch {
      // The link has counted it; the leases run out by themselves.
    }
  }
}
