/** Writes the part of MessagePack (specification of 2017) that engine events need, always in the shortest form. */
export class MsgpackWriter {
  #buffer = Buffer.allocUnsafe(4096)
  #length = 0

  /** What has been written; the writer is empty afterwards. */
  take(): Buffer {
    const bytes = Buffer.from(this.#buffer.subarray(0, this.#length))
    this.#length = 0
    return bytes
  }

  nil(): void {
    this.#byte(0xc0)
  }

  float(value: number): void {
    this.#byte(0xcb)
    this.#reserve(8)
    this.#length = this.#buffer.writeDoubleBE(value, this.#length)
  }

  /** A whole number below 2^32. */
  unsigned(value: number): void {
    if (value < 0x80) {
      this.#byte(value)
    } else if (value < 0x100) {
      this.#byte(0xcc)
      this.#byte(value)
    } else if (value < 0x10000) {
      this.#byte(0xcd)
      this.#word16(value)
    } else {
      this.#byte(0xce)
      this.#word32(value)
    }
  }

  unsigned64(low: number, high: number): void {
    if (high === 0) {
      this.unsigned(low)
      return
    }
    this.#byte(0xcf)
    this.#word32(high)
    this.#word32(low)
  }

  /** The same 64 bits as a signed number. */
  signed64(low: number, high: number): void {
    if (high < 0x80000000) {
      this.unsigned64(low, high)
      return
    }
    if (high === 0xffffffff && low >= 0x80000000) this.#negative(low | 0)
    else {
      this.#byte(0xd3)
      this.#word32(high)
      this.#word32(low)
    }
  }

  text(value: string): void {
    const bytes = Buffer.byteLength(value)
    if (bytes < 32) this.#byte(0xa0 | bytes)
    else this.#head(bytes, 0xd9, 0xda, 0xdb)
    this.#reserve(bytes)
    this.#length += this.#buffer.write(value, this.#length)
  }

  bytes(value: Uint8Array): void {
    this.#head(value.length, 0xc4, 0xc5, 0xc6)
    this.#reserve(value.length)
    this.#buffer.set(value, this.#length)
    this.#length += value.length
  }

  array(items: number): void {
    if (items < 16) this.#byte(0x90 | items)
    else this.#head(items, null, 0xdc, 0xdd)
  }

  map(fields: number): void {
    if (fields < 16) this.#byte(0x80 | fields)
    else this.#head(fields, null, 0xde, 0xdf)
  }

  field(name: string, value: string | number | null): void {
    this.text(name)
    if (value === null) this.nil()
    else if (typeof value === 'string') this.text(value)
    else this.unsigned(value)
  }

  #head(count: number, tag8: number | null, tag16: number, tag32: number): void {
    if (tag8 !== null && count < 0x100) {
      this.#byte(tag8)
      this.#byte(count)
    } else if (count < 0x10000) {
      this.#byte(tag16)
      this.#word16(count)
    } else {
      this.#byte(tag32)
      this.#word32(count)
    }
  }

  /** A negative number of 32 bits. */
  #negative(value: number): void {
    if (value >= -32) this.#byte(value & 0xff)
    else if (value >= -0x80) {
      this.#byte(0xd0)
      this.#byte(value & 0xff)
    } else if (value >= -0x8000) {
      this.#byte(0xd1)
      this.#word16(value & 0xffff)
    } else {
      this.#byte(0xd2)
      this.#word32(value >>> 0)
    }
  }

  #byte(value: number): void {
    this.#reserve(1)
    this.#buffer[this.#length++] = value
  }

  #word16(value: number): void {
    this.#reserve(2)
    this.#length = this.#buffer.writeUInt16BE(value, this.#length)
  }

  #word32(value: number): void {
    this.#reserve(4)
    this.#length = this.#buffer.writeUInt32BE(value, this.#length)
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#buffer.length) return
    const larger = Buffer.allocUnsafe(2 * (this.#length + bytes))
    this.#buffer.copy(larger, 0, 0, this.#length)
    this.#buffer = larger
  }
}
