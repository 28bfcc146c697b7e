/** Reads what a `ByteWriter` wrote. Whatever lies beyond the end makes it throw a RangeError, as Buffer does. */
export class ByteReader {
  readonly #bytes: Buffer
  readonly #end: number
  #at: number

  constructor(bytes: Uint8Array, from = 0, end = bytes.length) {
    this.#bytes = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#at = from
    this.#end = end
  }

  get left(): number {
    return this.#end - this.#at
  }

  u8(): number {
    return this.#bytes.readUInt8(this.#take(1))
  }

  u16(): number {
    return this.#bytes.readUInt16LE(this.#take(2))
  }

  u32(): number {
    return this.#bytes.readUInt32LE(this.#take(4))
  }

  u48(): number {
    return this.#bytes.readUIntLE(this.#take(6), 6)
  }

  f64(): number {
    return this.#bytes.readDoubleLE(this.#take(8))
  }

  words(count: number): Uint32Array {
    const from = this.#take(4 * count)
    const words = new Uint32Array(count)
    this.#bytes.copy(new Uint8Array(words.buffer), 0, from, from + 4 * count)
    return words
  }

  hex(bytes: number): string {
    const from = this.#take(bytes)
    return this.#bytes.toString('hex', from, from + bytes)
  }

  text(mostBytes: number): string {
    const bytes = this.u16()
    if (bytes > mostBytes) throw new RangeError(`a text of ${bytes} bytes`)
    const from = this.#take(bytes)
    return this.#bytes.toString('utf8', from, from + bytes)
  }

  /** The next bytes behind their length in four bytes. */
  measured(): ByteReader {
    const bytes = this.u32()
    const from = this.#take(bytes)
    return new ByteReader(this.#bytes, from, from + bytes)
  }

  #take(bytes: number): number {
    const from = this.#at
    if (bytes > this.left) throw new RangeError(`${bytes} bytes wanted and ${this.left} left`)
    this.#at += bytes
    return from
  }
}
