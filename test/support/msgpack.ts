/** An integer that is to be encoded at full width, whatever its size. */
export class Wide {
  readonly value: bigint
  constructor(value: bigint) {
    this.value = value
  }
}

export type Encodable =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Wide
  | readonly Encodable[]
  | { readonly [key: string]: Encodable }

/** A plain MessagePack encoder: shortest forms, floats as 64 bits, bigints and Wide as 64-bit integers. */
export function encodeMsgpack(value: Encodable): Buffer {
  if (value === null) return Buffer.of(0xc0)
  if (typeof value === 'boolean') return Buffer.of(value ? 0xc3 : 0xc2)
  if (typeof value === 'bigint') return wide(value)
  if (value instanceof Wide) return wide(value.value)
  if (typeof value === 'number') return number(value)
  if (typeof value === 'string') {
    const bytes = Buffer.from(value)
    return Buffer.concat([head(bytes.length, 0xa0, 31, 0xd9, 0xda, 0xdb), bytes])
  }
  if (value instanceof Uint8Array) return Buffer.concat([head(value.length, -1, -1, 0xc4, 0xc5, 0xc6), value])
  if (Array.isArray(value)) {
    return Buffer.concat([
      head(value.length, 0x90, 15, -1, 0xdc, 0xdd),
      ...value.map((item) => encodeMsgpack(item as Encodable)),
    ])
  }
  const entries = Object.entries(value as Record<string, Encodable>)
  const pairs = entries.flatMap(([key, item]) => [encodeMsgpack(key), encodeMsgpack(item)])
  return Buffer.concat([head(entries.length, 0x80, 15, -1, 0xde, 0xdf), ...pairs])
}

function head(length: number, short: number, shortMax: number, one: number, two: number, four: number): Buffer {
  if (length <= shortMax) return Buffer.of(short | length)
  if (one >= 0 && length <= 0xff) return Buffer.of(one, length)
  if (length <= 0xffff) return Buffer.of(two, length >> 8, length & 0xff)
  const bytes = Buffer.alloc(5)
  bytes[0] = four
  bytes.writeUInt32BE(length, 1)
  return bytes
}

function number(value: number): Buffer {
  const bytes = Buffer.alloc(9)
  if (!Number.isSafeInteger(value)) {
    bytes[0] = 0xcb
    bytes.writeDoubleBE(value, 1)
    return bytes
  }
  if (value >= 0 && value <= 0x7f) return Buffer.of(value)
  if (value < 0 && value >= -32) return Buffer.of(value & 0xff)
  if (value >= 0 && value <= 0xff) return Buffer.of(0xcc, value)
  if (value >= 0 && value <= 0xffff) return Buffer.of(0xcd, value >> 8, value & 0xff)
  if (value >= 0 && value <= 0xffff_ffff) {
    bytes[0] = 0xce
    bytes.writeUInt32BE(value, 1)
    return bytes.subarray(0, 5)
  }
  if (value >= -0x8000_0000 && value < 0) {
    bytes[0] = 0xd2
    bytes.writeInt32BE(value, 1)
    return bytes.subarray(0, 5)
  }
  return wide(BigInt(value))
}

function wide(value: bigint): Buffer {
  const bytes = Buffer.alloc(9)
  bytes[0] = value < 0n ? 0xd3 : 0xcf
  bytes.writeBigUInt64BE(BigInt.asUintN(64, value), 1)
  return bytes
}
