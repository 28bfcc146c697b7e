import assert from 'node:assert/strict'
import { endianness } from 'node:os'

assert.equal(endianness(), 'LE', 'arrays are copied as they lie in memory')

/** Bytes that grow as they are written; numbers are little-endian. */
export class ByteWriter {
  #bytes: Buffer
  #at = 0

  constructor(expectedBytes = 512) {
    this.#bytes = Buffer.allocUnsafe(expectedBytes)
  }

  get length(): number {
    return this.#at
  }

  u8(value: number): void {
    this.#room(1)
    this.#bytes[this.#at++] = value
  }

  u16(value: number): void {
    this.#room(2)
    this.#at = this.#bytes.writeUInt16LE(value, this.#at)
  }

  /** A word with or without a sign. */
  u32(value: number): void {
    this.#room(4)
    this.#at = this.#bytes.writeUInt32LE(value >>> 0, this.#at)
  }

  u48(value: number): void {
    this.#room(6)
    this.#at = this.#bytes.writeUIntLE(value, this.#at, 6)
  }

  f64(value: number): void {
    this.#room(8)
    this.#at = this.#bytes.writeDoubleLE(value, this.#at)
  }

  words(words: Uint32Array): void {
    this.#room(words.byteLength)
    this.#bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), this.#at)
    this.#at += words.byteLength
  }

  hex(digits: string): void {
    this.#room(digits.length / 2)
    this.#at += this.#bytes.write(digits, this.#at, 'hex')
  }

  /** Its length in two bytes, then the text. */
  text(text: string): void {
    const bytes = Buffer.byteLength(text)
    this.u16(bytes)
    this.#room(bytes)
    this.#at += this.#bytes.write(text, this.#at)
  }

  /** Writes what `body` writes behind its length in four bytes. */
  measured(body: () => void): void {
    const at = this.#at
    this.u32(0)
    body()
    this.#bytes.writeUInt32LE(this.#at - at - 4, at)
  }

  /** What was written; the writer is not to be used any more. */
  done(): Buffer {
    return this.#bytes.subarray(0, this.#at)
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#bytes.length) return
    const larger = Buffer.allocUnsafe(Math.max(2 * this.#bytes.length, this.#at + bytes))
    this.#bytes.copy(larger, 0, 0, this.#at)
    this.#bytes = larger
  }
}
