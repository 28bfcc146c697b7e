import { RouterError } from '../errors.ts'
import { protocolFault } from './frame.ts'

/*
 * The greeting of ZMTP 3.x, 64 bytes each way before anything else:
 *
 *    FF 00×8 7F │ 03 01 │ "NULL" 00×16 │ as-server │ 00×31
 *    signature    version  mechanism     0           filler
 */
export const greetingBytes = 64

/** What the peer said of itself: the minor version of ZMTP 3 (PING exists from 3.1 on). */
export interface Greeting {
  readonly minor: number
}

export function encodeGreeting(): Buffer {
  const bytes = Buffer.alloc(greetingBytes)
  bytes[0] = 0xff
  bytes[9] = 0x7f
  bytes[10] = 3
  bytes[11] = 1
  bytes.write('NULL', 12, 'latin1')
  return bytes
}

/** Refuses as early as the bytes allow, so that a peer of another protocol is not waited for. */
export function greetingFault(bytes: Buffer): RouterError | null {
  if (bytes.length > 0 && bytes[0] !== 0xff) return protocolFault('its first byte is not that of a greeting')
  if (bytes.length > 9 && ((bytes[9] as number) & 1) === 0) return protocolFault('its greeting has no signature')
  if (bytes.length > 10 && (bytes[10] as number) < 3) return protocolFault('it speaks a version of ZMTP before 3.0')
  if (bytes.length > 31 && mechanismOf(bytes) !== 'NULL') {
    return protocolFault(`it asks for the mechanism ${JSON.stringify(mechanismOf(bytes))}; only NULL is spoken here`)
  }
  return null
}

/** Reads a greeting that `greetingFault` has let pass. A later major version has to speak our 3.1 with us. */
export function readGreeting(bytes: Buffer): Greeting {
  return { minor: bytes[10] === 3 ? (bytes[11] as number) : 1 }
}

function mechanismOf(bytes: Buffer): string {
  return bytes.toString('latin1', 12, 32).replace(/\0+$/, '')
}
