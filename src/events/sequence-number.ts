/** Sequence numbers on the wire: 8 bytes, big-endian; −1 (all ones) marks the end of a replay. */
export function readSequence(bytes: Buffer): number | null {
  if (bytes.length !== 8) return null
  const value = bytes.readUInt32BE(0) * 0x1_0000_0000 + bytes.readUInt32BE(4)
  return Number.isSafeInteger(value) ? value : null
}

export function writeSequence(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32BE(Math.floor(value / 0x1_0000_0000), 0)
  bytes.writeUInt32BE(value >>> 0, 4)
  return bytes
}

export function isEndMark(bytes: Buffer): boolean {
  return bytes.length === 8 && bytes.every((byte) => byte === 0xff)
}
