/**
 * SGLang 0.5.23's own names for its KV blocks ("pages"):
 *
 *     digest_i = SHA-256(digest_{i-1} ‖ tokens of page i, 32 bits each, little-endian)
 *     id_i     = the first 8 bytes of digest_i, big-endian: what events carry, as a signed number
 *
 * Before the first page stands nothing, or under a cache salt the salt's own digest. With an adapter (and in the event
 * format `dynamo`) ids go through one more hash, under a seed made from the extra key and the salt.
 */
import { createHash } from 'node:crypto'

/** 64 bits of an id. */
export interface SglangId {
  readonly low: number
  readonly high: number
}

const none = Buffer.alloc(0)

/** What stands before the first page of a chain. */
export function sglangRoot(cacheSalt: string | null): Buffer {
  return cacheSalt === null ? none : sha256(Buffer.from(`sglang-cache-salt-v1\0${cacheSalt}`))
}

/**
 * The digest of the page after `parent`.
 *
 * @param tokens ids of the page; with EAGLE's pairs both ids of each pair in turn
 */
export function sglangDigest(parent: Buffer, tokens: Uint32Array): Buffer {
  const bytes = Buffer.allocUnsafe(4 * tokens.length)
  for (let i = 0; i < tokens.length; i++) bytes.writeUInt32LE(tokens[i] as number, 4 * i)
  return sha256(parent, bytes)
}

export function sglangId(digest: Buffer): SglangId {
  return { low: digest.readUInt32BE(4), high: digest.readUInt32BE(0) }
}

/**
 * The seed under which ids are hashed again.
 *
 * @param extraKey SGLang's own; for an adapter it ends in a random id of each loading, so that nobody else knows it
 */
export function sglangNamespace(extraKey: string | null, cacheSalt: string | null): Buffer {
  return sha256(Buffer.from('sglang-kv-event-namespace-v1'), part(extraKey), part(cacheSalt))
}

export function sglangNamespacedId(namespace: Buffer, digest: Buffer): SglangId {
  return sglangId(sha256(namespace, digest.subarray(0, 8)))
}

/** Absent, or with its length, so that no two pairs of texts look alike. */
function part(text: string | null): Buffer {
  if (text === null) return Buffer.of(0)
  const bytes = Buffer.from(text)
  const head = Buffer.alloc(9)
  head[0] = 1
  head.writeBigUInt64LE(BigInt(bytes.length), 1)
  return Buffer.concat([head, bytes])
}

function sha256(...parts: readonly Uint8Array[]): Buffer {
  const hash = createHash('sha256')
  for (const bytes of parts) hash.update(bytes)
  return hash.digest()
}
