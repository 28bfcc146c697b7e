import type { Aliases } from './aliases.ts'
import type { Blocks } from './blocks.ts'
import type { MapMemory } from './layout.ts'
import type { Tombstones } from './tombstones.ts'

const entriesPerStep = 4096

/**
 * Washes the dead out of the tables, a step at a time: aliases and set members of cleared workers, and aliases of evicted
 * blocks. A pass goes over all alias partitions and then, where a worker was cleared, over all entries; only then
 * may the incarnations that were dead at its start serve again. One partition is swept in one go, since records move in it.
 */
export class Sweep {
  readonly #memory: MapMemory
  readonly #blocks: Blocks
  readonly #aliases: Aliases
  readonly #tombstones: Tombstones
  #pass = 0
  #isRunning = false
  #dying: number[] = []
  #withEvictions = false
  #partition = 0
  #entry = 1
  readonly #isDead: (at: number) => boolean

  constructor(memory: MapMemory, blocks: Blocks, aliases: Aliases, tombstones: Tombstones) {
    this.#memory = memory
    this.#blocks = blocks
    this.#aliases = aliases
    this.#tombstones = tombstones
    this.#isDead = (at) => this.#isDeadAlias(at)
  }

  /** Whether a pass is under way. */
  get isRunning(): boolean {
    return this.#isRunning
  }

  get isNeeded(): boolean {
    return this.#isRunning || this.#blocks.holders.deadIncarnations > 0 || this.#blocks.unsweptEvictions > 0
  }

  /** Steps of a whole pass. */
  get passSteps(): number {
    return this.#aliases.partitions + Math.ceil(this.#blocks.entries.top / entriesPerStep)
  }

  /** Does one step; false: nothing is dead. */
  step(): boolean {
    if (!this.isNeeded) return false
    if (!this.#isRunning) this.#begin()
    if (this.#partition < this.#aliases.partitions) {
      this.#aliases.sweep(this.#partition++, this.#isDead)
    } else if (this.#dying.length > 0 && this.#entry < this.#blocks.entries.top) {
      const end = Math.min(this.#entry + entriesPerStep, this.#blocks.entries.top)
      for (; this.#entry < end; this.#entry++) this.#blocks.wash(this.#entry, this.#pass, this.#memory.incarnations)
    } else {
      this.#blocks.holders.recycle(this.#dying)
      this.#dying = []
      this.#isRunning = false
    }
    return true
  }

  /** Runs until all that was dead when it was called is gone. */
  finish(): void {
    // A pass that is under way may have gone past what died since; the next one has not.
    const last = this.#pass + 1
    while (this.isNeeded && (this.#pass < last || this.isRunning)) this.step()
  }

  #begin(): void {
    this.#pass++
    this.#isRunning = true
    this.#dying = this.#blocks.holders.takeDead()
    this.#withEvictions = this.#blocks.unsweptEvictions > 0
    this.#blocks.unsweptEvictions = 0
    this.#partition = 0
    this.#entry = 1
  }

  #isDeadAlias(at: number): boolean {
    const aliases = this.#aliases
    const incarnation = aliases.incarnation(at)
    const id = aliases.entry(at)
    if (this.#memory.incarnations[2 * incarnation] !== 0) {
      if (!this.#withEvictions) return false
      // A block that came back in another worker's hands keeps this alias until it goes again; lookups see through it.
      if (!this.#blocks.entries.isEvicted(id)) return false
      this.#tombstones.add(aliases.firstWord(at), aliases.secondWord(at))
    }
    this.#blocks.dropAlias(id)
    return true
  }
}
