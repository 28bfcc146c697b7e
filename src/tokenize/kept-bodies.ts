import { isAscii } from 'node:buffer'
import { scanBody, scanNextBody, type ScannedBody } from './body.ts'

/**
 * The last body of each conversation that a thread has read, so that of the next one only what is new is parsed, and the
 * messages before it are the same objects and strings as last time: what was made of them is found by their identity.
 * Least recently used bodies go when the budget is reached.
 */
export class KeptBodies {
  readonly #budgetBytes: number
  /** In order of use, the least recent first. */
  readonly #entries = new Set<Entry>()
  readonly #byName = new Map<number, Entry>()
  #bytes = 0

  constructor(budgetBytes: number) {
    this.#budgetBytes = budgetBytes
  }

  get bytes(): number {
    return this.#bytes
  }

  /**
   * Reads a body as `scanBody` does. Its messages are frozen if it is kept; its bytes are copied for that.
   *
   * @param names of its beginnings, the shortest first (see Affinity); a wrong one costs time, never a wrong result
   * @throws RouterError as `scanBody` does
   */
  read(bytes: Buffer, names: readonly number[]): ScannedBody {
    const known = this.#find(names)
    const next = known === null ? null : scanNextBody(bytes, known.body)
    const body = next?.body ?? scanBody(bytes)
    if (body.messageEnds !== null && names.length > 0) {
      const goesOn = known !== null && next !== null && next.sharedMessages === known.body.messageEnds?.length
      if (goesOn) this.#drop(known)
      this.#keep(body, names, goesOn ? known : null)
    }
    return body
  }

  #find(names: readonly number[]): Entry | null {
    for (let index = names.length - 1; index >= 0; index -= 1) {
      const entry = this.#byName.get(names[index] as number)
      if (entry !== undefined) return entry
    }
    return null
  }

  #keep(scanned: ScannedBody, names: readonly number[], forerunner: Entry | null): void {
    const equal = forerunner?.body.messageEnds?.at(-1) ?? 0
    const ascii = (forerunner?.ascii ?? true) && isAscii(scanned.bytes.subarray(equal))
    const bytes = entryBytes(scanned.bytes.length, ascii)
    if (bytes > this.#budgetBytes) return
    const room = roomFor(scanned.bytes, equal, forerunner)
    const body = { ...scanned, bytes: room.subarray(0, scanned.bytes.length) }
    const entry: Entry = { body, room, ascii, names, bytes }
    for (const message of body.value['messages'] as object[]) Object.freeze(message)
    this.#entries.add(entry)
    this.#bytes += entry.bytes
    for (const name of names) this.#byName.set(name, entry)
    for (const oldest of this.#entries) {
      if (this.#bytes <= this.#budgetBytes) break
      this.#drop(oldest)
    }
  }

  #drop(entry: Entry): void {
    this.#entries.delete(entry)
    this.#bytes -= entry.bytes
    for (const name of entry.names) if (this.#byName.get(name) === entry) this.#byName.delete(name)
  }
}

interface Entry {
  readonly body: ScannedBody
  /** The memory of its bytes, with room for those of the next turn. */
  readonly room: Buffer
  readonly ascii: boolean
  readonly names: readonly number[]
  readonly bytes: number
}

/** Bytes in the memory of those that they go on from, if it has room; else in memory with room for more. */
function roomFor(bytes: Buffer, equal: number, forerunner: Entry | null): Buffer {
  if (forerunner !== null && forerunner.room.length >= bytes.length) {
    bytes.copy(forerunner.room, equal, equal)
    return forerunner.room
  }
  const room = Buffer.allocUnsafeSlow(Math.ceil(bytes.length * 1.125))
  bytes.copy(room)
  return room
}

/** Estimated: the bytes with their room, what was parsed of them at one or two bytes a character, and the objects around it. */
function entryBytes(length: number, ascii: boolean): number {
  return length * (ascii ? 2.5 : 3.5) + 1024
}
