import type { EventPosition } from '../kv/batch.ts'

/** Positions that are remembered: how far replicas may be apart and still recognize each other's. */
const places = 4096

/** The last positions that a worker's state went through. Numbers that are far apart may push each other out. */
export class History {
  readonly #sequences = new Float64Array(places).fill(-1)
  readonly #timestamps = new Float64Array(places)

  add({ sequence, timestamp }: EventPosition): void {
    const place = sequence % places
    this.#sequences[place] = sequence
    this.#timestamps[place] = timestamp
  }

  has({ sequence, timestamp }: EventPosition): boolean {
    const place = sequence % places
    return this.#sequences[place] === sequence && Object.is(this.#timestamps[place], timestamp)
  }

  clear(): void {
    this.#sequences.fill(-1)
  }
}
