import type { Aliases } from './aliases.ts'
import type { Blocks } from './blocks.ts'
import type { MapMemory } from './layout.ts'

const entriesPerStep = 4096

/**
 * Washes the dead out of the tables, a step at a time: aliases and set members of cleared workers, and aliases of evicted
 * blocks. A pass goes over all alias partitions and then, where a worker was cleared, over all entries. Only then may
 * what no table names any more serve again: the incarnations that were dead at its start, and worn entry ids.
 */
export class Sweep {
  readonly #memory: MapMemory
  readonly #blocks: Blocks
  readonly #aliases: Aliases
  #pass = 0
  #isRunning = false
  #dying: number[] = []
  #partition = 0
  #entry = 1
  /** Steps owed, in fractions: storing pays for sweeping. */
  #debt = 0

  constructor(memory: MapMemory, blocks: Blocks, aliases: Aliases) {
    this.#memory = memory
    this.#blocks = blocks
    this.#aliases = aliases
  }

  /** Whether something waits for a pass to end. Aliases of evicted blocks alone can wait for their partition to fill. */
  get isDue(): boolean {
    return this.#isRunning || this.#blocks.holders.deadIncarnations > 0 || this.#blocks.entries.hasWorn
  }

  get isNeeded(): boolean {
    return this.isDue || this.#aliases.dead > 0
  }

  /** Keeps in step with what is stored: a pass is over when a sixteenth of the map was replaced. */
  pay(blocks: number): void {
    if (!this.isDue) return
    const { top } = this.#blocks.entries
    this.#debt += (16 * blocks * (this.#aliases.partitions + Math.ceil(top / entriesPerStep))) / top
    for (; this.#debt >= 1; this.#debt--) if (!this.step()) this.#debt = 0
  }

  /** Does one step; false: nothing is dead. */
  step(): boolean {
    if (!this.isNeeded) return false
    if (!this.#isRunning) this.#begin()
    if (this.#partition < this.#aliases.partitions) {
      this.#aliases.sweep(this.#partition++)
    } else if (this.#dying.length > 0 && this.#entry < this.#blocks.entries.top) {
      const end = Math.min(this.#entry + entriesPerStep, this.#blocks.entries.top)
      for (; this.#entry < end; this.#entry++) this.#blocks.wash(this.#entry, this.#pass, this.#memory.incarnations)
    } else {
      this.#end()
    }
    return true
  }

  /** Runs until all that was dead when it was called is gone. */
  finish(): void {
    // A pass that is under way may have gone past what died since; the next one has not.
    const last = this.#pass + 1
    while (this.isNeeded && (this.#pass < last || this.#isRunning)) this.step()
  }

  #begin(): void {
    this.#pass++
    this.#isRunning = true
    this.#dying = this.#blocks.holders.takeDead()
    this.#blocks.entries.beginRest()
    this.#aliases.beginPass()
    this.#partition = 0
    this.#entry = 1
  }

  #end(): void {
    this.#blocks.holders.recycle(this.#dying)
    this.#dying = []
    this.#blocks.entries.endRest()
    this.#aliases.endPass()
    this.#isRunning = false
  }
}
