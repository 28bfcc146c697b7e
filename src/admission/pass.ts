import type { Charge } from './rates.ts'

/** What a Pass tells its issuer. */
export interface PassIssuer {
  readonly passSent: () => void
  readonly passDone: (wasSent: boolean) => void
}

/** The right to send one request to its pool. Whoever holds it calls `done` when the request is over, whatever became of it. */
export class Pass {
  /** How long the request waited for it; 0 where it did not have to. */
  readonly waitedMs: number
  readonly #issuer: PassIssuer
  readonly #charge: Charge | null
  #state: 'issued' | 'sent' | 'done' = 'issued'

  constructor(issuer: PassIssuer, charge: Charge | null, waitedMs: number) {
    this.#issuer = issuer
    this.#charge = charge
    this.waitedMs = waitedMs
  }

  /** The request now counts among those in flight on a worker; until then it counts against the room of its pool here. */
  sent(): void {
    if (this.#state !== 'issued') return
    this.#state = 'sent'
    this.#issuer.passSent()
  }

  /**
   * The request is over and no longer counts among those in flight: what it generated is charged, and its place is handed
   * on. A second call changes nothing.
   */
  done(generatedTokens: number): void {
    if (this.#state === 'done') return
    const wasSent = this.#state === 'sent'
    this.#state = 'done'
    if (wasSent) this.#charge?.settle(generatedTokens)
    else this.#charge?.refund()
    this.#issuer.passDone(wasSent)
  }
}
