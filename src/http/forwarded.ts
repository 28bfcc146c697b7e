import type { IncomingMessage } from 'node:http'
import { BlockList, isIPv6, type Socket } from 'node:net'

/** The proxies in front whose word about where a request came from is taken. */
export class TrustedProxies {
  #ranges = new BlockList()
  #any = false
  /** The peer of a connection stays the same, and the list is slow to ask. */
  #known = new WeakMap<Socket, boolean>()

  constructor(ranges: readonly string[]) {
    this.replace(ranges)
  }

  /** Addresses and ranges such as 10.0.0.0/8, as the config has checked them. */
  replace(ranges: readonly string[]): void {
    this.#ranges = new BlockList()
    this.#known = new WeakMap()
    this.#any = ranges.length > 0
    for (const range of ranges) {
      const [address = '', bits] = range.split('/')
      const family = isIPv6(address) ? 'ipv6' : 'ipv4'
      if (bits === undefined) this.#ranges.addAddress(address, family)
      else this.#ranges.addSubnet(address, Number(bits), family)
    }
  }

  sent(request: IncomingMessage): boolean {
    if (!this.#any) return false
    const { socket } = request
    let trusted = this.#known.get(socket)
    if (trusted === undefined) {
      const address = peerOf(socket)
      trusted = address !== '' && this.#ranges.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')
      this.#known.set(socket, trusted)
    }
    return trusted
  }
}

/**
 * The headers that tell a worker where the request came from, as a flat list. A trusted proxy's are kept and the proxy
 * itself is added; anyone else's are replaced by what the connection shows. The client's own never go on as they came
 * (proxy/headers.ts), so that what a worker gets is what stands here.
 */
export function forwardedOf(request: IncomingMessage, proxies: TrustedProxies): readonly string[] {
  const peer = peerOf(request.socket) || 'unknown'
  const protocol = 'encrypted' in request.socket ? 'https' : 'http'
  const { headers } = request
  if (!proxies.sent(request)) {
    const own = ['x-forwarded-for', peer, 'x-forwarded-proto', protocol]
    if (headers.host !== undefined) own.push('x-forwarded-host', headers.host)
    return own
  }
  const kept = ['x-forwarded-for', joined(headers['x-forwarded-for'], peer)]
  kept.push('x-forwarded-proto', textOf(headers['x-forwarded-proto']) ?? protocol)
  const host = textOf(headers['x-forwarded-host']) ?? headers.host
  if (host !== undefined) kept.push('x-forwarded-host', host)
  for (const name of ['x-forwarded-port', 'forwarded', 'x-real-ip']) {
    const value = textOf(headers[name])
    if (value !== undefined) kept.push(name, value)
  }
  return kept
}

/** Whether the request came by a proxy, which tells so: its peer is then not the client. */
export function cameByProxy({ headers }: IncomingMessage): boolean {
  return (
    headers['x-forwarded-for'] !== undefined ||
    headers['x-forwarded-host'] !== undefined ||
    headers['x-forwarded-proto'] !== undefined ||
    headers['x-real-ip'] !== undefined ||
    headers.forwarded !== undefined ||
    headers.via !== undefined
  )
}

/** The peer's address, IPv4 in its own form also where it came in on a socket for both. */
function peerOf(socket: Socket): string {
  const address = socket.remoteAddress ?? ''
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice('::ffff:'.length) : address
}

function joined(before: string | readonly string[] | undefined, peer: string): string {
  const text = textOf(before)
  return text === undefined ? peer : `${text}, ${peer}`
}

function textOf(value: string | readonly string[] | undefined): string | undefined {
  const text = typeof value === 'string' ? value : value?.join(', ')
  return text === '' ? undefined : text
}
