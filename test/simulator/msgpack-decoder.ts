/** A plain MessagePack reader for what tests receive; integers beyond 2^53 become bigints. */
export function decodeMsgpack(bytes: Buffer): unknown {
  let at = 0
  const take = (count: number): Buffer => bytes.subarray(at, (at += count))
  const list = (count: number): unknown[] => Array.from({ length: count }, () => value())
  const map = (count: number): Record<string, unknown> => {
    const fields: Record<string, unknown> = {}
    for (let i = 0; i < count; i++) {
      const key = value()
      if (typeof key !== 'string') throw new Error('a key is no text')
      fields[key] = value()
    }
    return fields
  }
  const value = (): unknown => {
    const tag = bytes.readUInt8(at++)
    if (tag < 0x80) return tag
    if (tag < 0x90) return map(tag & 15)
    if (tag < 0xa0) return list(tag & 15)
    if (tag < 0xc0) return take(tag & 31).toString()
    switch (tag) {
      case 0xc0:
        return null
      case 0xc4:
        return take(take(1).readUInt8())
      case 0xcb:
        return take(8).readDoubleBE()
      case 0xcc:
        return take(1).readUInt8()
      case 0xcd:
        return take(2).readUInt16BE()
      case 0xce:
        return take(4).readUInt32BE()
      case 0xcf: {
        const wide = take(8).readBigUInt64BE()
        return wide <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(wide) : wide
      }
      case 0xd9:
        return take(take(1).readUInt8()).toString()
      case 0xdc:
        return list(take(2).readUInt16BE())
      case 0xdd:
        return list(take(4).readUInt32BE())
      default:
        throw new Error(`tag ${tag} is not expected`)
    }
  }
  const whole = value()
  if (at !== bytes.length) throw new Error('bytes are left over')
  return whole
}
