/**
 * XXH3 with 128 bits and seed 0 (xxHash 0.8, doc/xxhash_spec.md), which vLLM's `xxhash` and `xxhash_cbor` name blocks by.
 * It serves to check an engine's first block, once in a while: plain and in bigints, about 50 µs a block.
 */
export function xxh3With128Bits(input: Buffer): Buffer {
  const { low, high } = wordsOf(input)
  const digest = Buffer.alloc(16)
  digest.writeBigUInt64BE(high, 0)
  digest.writeBigUInt64BE(low, 8)
  return digest
}

interface Words {
  low: bigint
  high: bigint
}

const secret = Buffer.from(
  'b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6' +
    '813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c8' +
    '9f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95' +
    '160428afd7fbcabb4b407e',
  'hex',
)
const mask32 = 0xffffffffn
const mask64 = 0xffffffffffffffffn
const prime32 = [0x9e3779b1n, 0x85ebca77n, 0xc2b2ae3dn] as const
const prime64 = [
  0x9e3779b185ebca87n,
  0xc2b2ae3d27d4eb4fn,
  0x165667b19e3779f9n,
  0x85ebca77c2b2ae63n,
  0x27d4eb2f165667c5n,
] as const
const stripeBytes = 64
const stripesPerBlock = (secret.length - stripeBytes) / 8

function wordsOf(input: Buffer): Words {
  const { length } = input
  if (length > 240) return ofLong(input)
  if (length > 128) return ofUpTo240(input)
  if (length > 16) return ofUpTo128(input)
  if (length > 8) return ofUpTo16(input)
  if (length > 3) return ofUpTo8(input)
  if (length > 0) return ofUpTo3(input)
  return { low: avalanche64(secretAt(64) ^ secretAt(72)), high: avalanche64(secretAt(80) ^ secretAt(88)) }
}

function ofUpTo3(input: Buffer): Words {
  const { length } = input
  const first = BigInt(input[0] ?? 0)
  const middle = BigInt(input[length >> 1] ?? 0)
  const last = BigInt(input[length - 1] ?? 0)
  const combined = (first << 16n) | (middle << 24n) | last | (BigInt(length) << 8n)
  const swapped = swap(combined, 4)
  const rotated = ((swapped << 13n) | (swapped >> 19n)) & mask32
  return {
    low: avalanche64(combined ^ (secret32At(0) ^ secret32At(4))),
    high: avalanche64(rotated ^ (secret32At(8) ^ secret32At(12))),
  }
}

function ofUpTo8(input: Buffer): Words {
  const { length } = input
  const value = BigInt(input.readUInt32LE(0)) | (BigInt(input.readUInt32LE(length - 4)) << 32n)
  const product = multiply(value ^ secretAt(16) ^ secretAt(24), prime64[0] + BigInt(length << 2))
  const high = wrap(product.high + (product.low << 1n))
  let low = shifted(product.low ^ (high >> 3n), 35n)
  low = shifted(wrap(low * 0x9fb21c651e98df25n), 28n)
  return { low, high: avalanche(high) }
}

function ofUpTo16(input: Buffer): Words {
  const { length } = input
  const first = input.readBigUInt64LE(0)
  let last = input.readBigUInt64LE(length - 8)
  const mixed = multiply(first ^ last ^ secretAt(32) ^ secretAt(40), prime64[0])
  mixed.low = wrap(mixed.low + (BigInt(length - 1) << 54n))
  last ^= secretAt(48) ^ secretAt(56)
  mixed.high = wrap(mixed.high + last + (last & mask32) * (prime32[1] - 1n))
  mixed.low ^= swap(mixed.high, 8)
  const product = multiply(mixed.low, prime64[1])
  return { low: avalanche(product.low), high: avalanche(wrap(product.high + mixed.high * prime64[1])) }
}

function ofUpTo128(input: Buffer): Words {
  const { length } = input
  const sum: Words = { low: wrap(BigInt(length) * prime64[0]), high: 0n }
  for (let pair = Math.ceil(length / 32) - 1; pair >= 0; pair--)
    mix32(sum, input, 16 * pair, length - 16 * (pair + 1), 32 * pair)
  return ended(sum, length)
}

function ofUpTo240(input: Buffer): Words {
  const { length } = input
  const sum: Words = { low: wrap(BigInt(length) * prime64[0]), high: 0n }
  const rounds = Math.floor(length / 32)
  for (let round = 0; round < 4; round++) mix32(sum, input, 32 * round, 32 * round + 16, 32 * round)
  sum.low = avalanche(sum.low)
  sum.high = avalanche(sum.high)
  for (let round = 4; round < rounds; round++) mix32(sum, input, 32 * round, 32 * round + 16, 3 + 32 * (round - 4))
  mix32(sum, input, length - 16, length - 32, 136 - 17 - 16)
  return ended(sum, length)
}

function ended(sum: Words, length: number): Words {
  return {
    low: avalanche(wrap(sum.low + sum.high)),
    high: wrap(-avalanche(wrap(sum.low * prime64[0] + sum.high * prime64[3] + BigInt(length) * prime64[1]))),
  }
}

function ofLong(input: Buffer): Words {
  const { length } = input
  const lanes = [
    prime32[2],
    prime64[0],
    prime64[1],
    prime64[2],
    prime64[3],
    prime32[1],
    prime64[4],
    prime32[0],
  ] as const satisfies readonly bigint[]
  const sums: bigint[] = [...lanes]
  const blockBytes = stripeBytes * stripesPerBlock
  const blocks = Math.floor((length - 1) / blockBytes)
  for (let block = 0; block < blocks; block++) {
    for (let stripe = 0; stripe < stripesPerBlock; stripe++)
      accumulate(sums, input, block * blockBytes + stripe * stripeBytes, stripe * 8)
    scramble(sums)
  }
  const stripes = Math.floor((length - 1 - blocks * blockBytes) / stripeBytes)
  for (let stripe = 0; stripe < stripes; stripe++)
    accumulate(sums, input, blocks * blockBytes + stripe * stripeBytes, stripe * 8)
  accumulate(sums, input, length - stripeBytes, secret.length - stripeBytes - 7)
  return {
    low: merged(sums, 11, wrap(BigInt(length) * prime64[0])),
    high: merged(sums, secret.length - stripeBytes - 11, wrap(~(BigInt(length) * prime64[1]))),
  }
}

function accumulate(sums: bigint[], input: Buffer, at: number, secretFrom: number): void {
  for (let lane = 0; lane < 8; lane++) {
    const value = input.readBigUInt64LE(at + 8 * lane)
    const key = value ^ secretAt(secretFrom + 8 * lane)
    sums[lane ^ 1] = wrap((sums[lane ^ 1] ?? 0n) + value)
    sums[lane] = wrap((sums[lane] ?? 0n) + (key & mask32) * (key >> 32n))
  }
}

function scramble(sums: bigint[]): void {
  for (let lane = 0; lane < 8; lane++) {
    const key = secretAt(secret.length - stripeBytes + 8 * lane)
    sums[lane] = wrap((shifted(sums[lane] ?? 0n, 47n) ^ key) * prime32[0])
  }
}

function merged(sums: readonly bigint[], secretFrom: number, start: bigint): bigint {
  let result = start
  for (let pair = 0; pair < 4; pair++) {
    const one = (sums[2 * pair] ?? 0n) ^ secretAt(secretFrom + 16 * pair)
    const other = (sums[2 * pair + 1] ?? 0n) ^ secretAt(secretFrom + 16 * pair + 8)
    result = wrap(result + folded(one, other))
  }
  return avalanche(result)
}

function mix32(sum: Words, input: Buffer, one: number, other: number, secretFrom: number): void {
  sum.low = wrap(sum.low + mix16(input, one, secretFrom))
  sum.low ^= wrap(input.readBigUInt64LE(other) + input.readBigUInt64LE(other + 8))
  sum.high = wrap(sum.high + mix16(input, other, secretFrom + 16))
  sum.high ^= wrap(input.readBigUInt64LE(one) + input.readBigUInt64LE(one + 8))
}

function mix16(input: Buffer, at: number, secretFrom: number): bigint {
  return folded(
    input.readBigUInt64LE(at) ^ secretAt(secretFrom),
    input.readBigUInt64LE(at + 8) ^ secretAt(secretFrom + 8),
  )
}

function multiply(one: bigint, other: bigint): Words {
  const product = one * other
  return { low: product & mask64, high: product >> 64n }
}

function folded(one: bigint, other: bigint): bigint {
  const { low, high } = multiply(one, other)
  return low ^ high
}

function avalanche(value: bigint): bigint {
  return shifted(wrap(shifted(value, 37n) * 0x165667919e3779f9n), 32n)
}

/** That of XXH64, for the shortest inputs. */
function avalanche64(value: bigint): bigint {
  const once = wrap(shifted(value, 33n) * prime64[1])
  return shifted(wrap(shifted(once, 29n) * prime64[2]), 32n)
}

function shifted(value: bigint, bits: bigint): bigint {
  return value ^ (value >> bits)
}

function swap(value: bigint, bytes: number): bigint {
  const buffer = Buffer.alloc(8)
  buffer.writeBigUInt64LE(value)
  return buffer.readBigUInt64BE() >> BigInt(64 - 8 * bytes)
}

function wrap(value: bigint): bigint {
  return BigInt.asUintN(64, value)
}

function secretAt(at: number): bigint {
  return secret.readBigUInt64LE(at)
}

function secret32At(at: number): bigint {
  return BigInt(secret.readUInt32LE(at))
}
