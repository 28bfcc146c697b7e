import { decodeBatch, type DecodedEvent } from '../../src/events/decode.ts'
import { systemClock } from '../../src/zmtp/clock.ts'
import { SubSocket } from '../../src/zmtp/sub-socket.ts'

/** Since this moment so many copies of the block lie in the medium. */
interface Change {
  readonly moment: number
  readonly copies: number
}

export interface JournalOptions {
  /** Where the engine publishes its KV events. */
  readonly endpoint: string
  readonly blockSize: number
  /** Whether the engine announces a block once for each copy of it. */
  readonly countsStores: boolean
}

const gpu = 'gpu'
const none: readonly Change[] = []

/**
 * Everything that an engine has told, with its own times: what it held at any moment. The tests' second opinion beside
 * the router's map: it knows of no limits, no keys and no routing, and forgets nothing.
 *
 * A moment is a number of events told; moment 0 is before the first.
 */
export class Journal {
  readonly #options: JournalOptions
  readonly #socket: SubSocket
  /** Name of a block by its parent's name and its tokens. */
  readonly #names = new Map<string, string>()
  /** Medium and name of a block → its changes. */
  readonly #changes = new Map<string, Change[]>()
  readonly #media = new Set([gpu])
  /** Engine's time in ms of each event. */
  readonly #times: number[] = []
  #lastSequence: number | null = null
  #lost = 0
  #stored = 0
  #removed = 0

  /** Subscribes; resolves once the engine is reached, so that nothing is missed from then on. */
  static of(options: JournalOptions): Promise<Journal> {
    return new Promise((resolve) => {
      const journal: Journal = new Journal(options, () => resolve(journal))
    })
  }

  private constructor(options: JournalOptions, onConnected: () => void) {
    this.#options = options
    this.#socket = new SubSocket({
      topics: [''],
      clock: systemClock,
      random: Math.random,
      onConnected,
      onMessage: (frames) => this.#read(frames),
    })
    this.#socket.connect(options.endpoint)
  }

  /** Blocks stored and removed so far, and batches that were missed. */
  get counts(): { readonly stored: number; readonly removed: number; readonly lost: number } {
    return { stored: this.#stored, removed: this.#removed, lost: this.#lost }
  }

  get now(): number {
    return this.#times.length
  }

  get media(): readonly string[] {
    return [...this.#media]
  }

  /** The moment after everything that the engine had told at a time in ms. */
  momentAt(timeMs: number): number {
    let low = 0
    let high = this.#times.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#times[middle] ?? Infinity) <= timeMs) low = middle + 1
      else high = middle
    }
    return low
  }

  /** The engine's names of a prompt's leading blocks, as far as it has ever told of them. */
  namesOf(tokens: readonly number[]): string[] {
    const { blockSize } = this.#options
    const names: string[] = []
    let parent = ''
    for (let at = 0; at + blockSize <= tokens.length; at += blockSize) {
      const name = this.#names.get(`${parent} ${tokens.slice(at, at + blockSize).join()}`)
      if (name === undefined) break
      names.push(name)
      parent = name
    }
    return names
  }

  /** Leading blocks of the names that lay in some medium at the moment. */
  held(names: readonly string[], moment: number): number {
    let count = 0
    while (count < names.length && this.#isHeld(names[count] ?? '', moment)) count++
    return count
  }

  /** The first of the names that was stored after one moment and until another; their number if none was. */
  firstStored(names: readonly string[], after: number, until: number): number {
    const stored = (name: string): boolean =>
      (this.#changes.get(`${gpu} ${name}`) ?? none).some(
        ({ moment, copies }, at, changes) =>
          moment > after && moment <= until && copies > (changes[at - 1]?.copies ?? 0),
      )
    const first = names.findIndex(stored)
    return first === -1 ? names.length : first
  }

  /** Different blocks in a medium now. */
  blocks(medium = gpu): number {
    let count = 0
    for (const [place, changes] of this.#changes)
      if (place.startsWith(`${medium} `) && (changes.at(-1)?.copies ?? 0) > 0) count++
    return count
  }

  /** The process has ended and what it held with it; the next one counts from 0. */
  forget(): void {
    this.#clear()
    this.#lastSequence = null
  }

  close(): Promise<void> {
    return this.#socket.close()
  }

  #isHeld(name: string, moment: number): boolean {
    for (const medium of this.#media) {
      const changes = this.#changes.get(`${medium} ${name}`) ?? none
      let at = changes.length - 1
      while (at >= 0 && (changes[at]?.moment ?? 0) > moment) at--
      if ((changes[at]?.copies ?? 0) > 0) return true
    }
    return false
  }

  #read(frames: readonly Buffer[]): void {
    const sequence = Number(frames.at(-2)?.readBigUInt64BE())
    if (this.#lastSequence !== null && sequence !== this.#lastSequence + 1) this.#lost++
    this.#lastSequence = sequence
    const { timestamp, events } = decodeBatch(frames.at(-1) ?? Buffer.alloc(0))
    for (const event of events) {
      this.#times.push(timestamp * 1000)
      this.#apply(event)
    }
  }

  #apply(event: DecodedEvent): void {
    if (event.kind === 'clear') {
      this.#clear()
      return
    }
    const medium = event.medium?.toLowerCase() ?? gpu
    this.#media.add(medium)
    const names = namesIn(event.hashes)
    for (const name of names) {
      const changes = this.#changesOf(`${medium} ${name}`)
      const before = changes.at(-1)?.copies ?? 0
      const stored = this.#options.countsStores ? before + 1 : 1
      changes.push({ moment: this.now, copies: event.kind === 'store' ? stored : Math.max(0, before - 1) })
    }
    if (event.kind === 'remove') {
      this.#removed += names.length
      return
    }
    this.#stored += names.length
    let parent = event.parent === null ? '' : (namesIn(event.parent)[0] ?? '')
    for (const [at, name] of names.entries()) {
      const own = event.tokens.subarray(at * event.blockSize, (at + 1) * event.blockSize)
      this.#names.set(`${parent} ${own.join()}`, name)
      parent = name
    }
  }

  #clear(): void {
    for (const changes of this.#changes.values())
      if ((changes.at(-1)?.copies ?? 0) > 0) changes.push({ moment: this.now, copies: 0 })
  }

  #changesOf(place: string): Change[] {
    let changes = this.#changes.get(place)
    if (changes === undefined) this.#changes.set(place, (changes = []))
    return changes
  }
}

function namesIn(hashes: Uint32Array): string[] {
  const names: string[] = []
  for (let at = 0; at + 1 < hashes.length; at += 2) names.push(`${hashes[at + 1]}.${hashes[at]}`)
  return names
}
