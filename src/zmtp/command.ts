import { encodeCommandFrame, protocolFault } from './frame.ts'
import type { RouterError } from '../errors.ts'

export type SocketType = 'SUB' | 'PUB' | 'DEALER' | 'ROUTER'

/** Who may talk to whom (RFC 37, "Socket Types"). */
export const partners: Record<SocketType, readonly string[]> = {
  SUB: ['PUB', 'XPUB'],
  PUB: ['SUB', 'XSUB'],
  DEALER: ['ROUTER', 'DEALER', 'REP'],
  ROUTER: ['DEALER', 'ROUTER', 'REQ'],
}

/** The commands of ZMTP 3.1 that a NULL connection may carry. */
export type Command =
  | { readonly kind: 'ready'; readonly socketType: string; readonly identity: Buffer }
  | { readonly kind: 'error'; readonly reason: string }
  | { readonly kind: 'ping'; readonly context: Buffer }
  | { readonly kind: 'pong' }
  | { readonly kind: 'subscribe'; readonly topic: Buffer }
  | { readonly kind: 'cancel'; readonly topic: Buffer }
  | { readonly kind: 'unknown'; readonly name: string }
  | { readonly kind: 'malformed'; readonly fault: RouterError }

const emptyBytes = Buffer.alloc(0)
/** RFC 37: a PING's context is at most 16 bytes. */
const maxContextBytes = 16

export function encodeReady(socketType: SocketType, identity: Uint8Array): Buffer {
  const properties = [property('Socket-Type', Buffer.from(socketType, 'latin1'))]
  if (socketType === 'DEALER' || socketType === 'ROUTER') properties.push(property('Identity', identity))
  return encodeCommandFrame(Buffer.concat([named('READY'), ...properties]))
}

/** `SUBSCRIBE` and `CANCEL` are commands from ZMTP 3.1 on; before, a message with a leading 1 or 0 said the same. */
export function encodeSubscribe(topic: Uint8Array): Buffer {
  return encodeCommandFrame(Buffer.concat([named('SUBSCRIBE'), topic]))
}

/** A time to live of 0 asks the peer not to cut the connection by itself. */
export function encodePing(): Buffer {
  return encodeCommandFrame(Buffer.concat([named('PING'), Buffer.alloc(2)]))
}

export function encodePong(context: Uint8Array): Buffer {
  return encodeCommandFrame(Buffer.concat([named('PONG'), context]))
}

export function decodeCommand(body: Buffer): Command {
  const nameBytes = body[0]
  if (nameBytes === undefined || nameBytes === 0 || body.length < 1 + nameBytes)
    return malformed('a command has no name')
  const name = body.toString('latin1', 1, 1 + nameBytes)
  const rest = body.subarray(1 + nameBytes)
  switch (name) {
    case 'READY':
      return decodeReady(rest)
    case 'ERROR':
      return { kind: 'error', reason: rest.toString('latin1', 1, 256) }
    case 'PING':
      if (rest.length < 2) return malformed('a PING has no time to live')
      return { kind: 'ping', context: rest.subarray(2, 2 + maxContextBytes) }
    case 'PONG':
      return { kind: 'pong' }
    case 'SUBSCRIBE':
      return { kind: 'subscribe', topic: rest }
    case 'CANCEL':
      return { kind: 'cancel', topic: rest }
    default:
      return { kind: 'unknown', name }
  }
}

function decodeReady(properties: Buffer): Command {
  let socketType = ''
  let identity: Buffer = emptyBytes
  let at = 0
  while (at < properties.length) {
    const valueAt = at + 1 + (properties[at] as number)
    if (valueAt + 4 > properties.length) return malformed('READY has a property that is cut short')
    const name = properties.toString('latin1', at + 1, valueAt).toLowerCase()
    const end = valueAt + 4 + properties.readUInt32BE(valueAt)
    if (end > properties.length) return malformed('READY has a value that is cut short')
    const value = properties.subarray(valueAt + 4, end)
    if (name === 'socket-type') socketType = value.toString('latin1', 0, 32)
    if (name === 'identity') identity = value
    at = end
  }
  return identity.length > 255
    ? malformed('its identity is longer than 255 bytes')
    : { kind: 'ready', socketType, identity }
}

function malformed(what: string): Command {
  return { kind: 'malformed', fault: protocolFault(what) }
}

function named(name: string): Buffer {
  return Buffer.concat([Buffer.of(name.length), Buffer.from(name, 'latin1')])
}

function property(name: string, value: Uint8Array): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(value.length)
  return Buffer.concat([named(name), length, value])
}
