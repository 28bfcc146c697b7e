import { createSocket } from 'node:dgram'
import type { TestContext } from 'node:test'

export type DnsRecord =
  | { readonly type: 'A' | 'AAAA'; readonly address: string }
  | { readonly type: 'SRV'; readonly priority?: number; readonly port: number; readonly target: string }

/** What a name is answered with: its records of any type, or the response code of a fault. */
export type DnsAnswer = readonly DnsRecord[] | 'NXDOMAIN' | 'SERVFAIL' | 'silence'

const codes = { A: 1, AAAA: 28, SRV: 33 }
const faults = { NXDOMAIN: 3, SERVFAIL: 2 }

export interface DnsServer {
  /** `IP:port`, as the config takes it. */
  readonly address: string
  /** By name, in lower case; others do not exist. */
  readonly names: Map<string, DnsAnswer>
  /** Questions so far. */
  readonly asked: () => number
}

/** A DNS server on a real UDP port (RFC 1035, 2782, 3596) that knows the names that the test gives it. */
export async function dnsServer(t: TestContext, names: Readonly<Record<string, DnsAnswer>> = {}): Promise<DnsServer> {
  const socket = createSocket('udp4')
  const known = new Map(Object.entries(names))
  let asked = 0
  socket.on('message', (query, from) => {
    asked++
    const { name, type, end } = questionOf(query)
    const answer = known.get(name) ?? 'NXDOMAIN'
    if (answer === 'silence') return
    const records = typeof answer === 'string' ? [] : answer.filter((record) => codes[record.type] === type)
    const header = Buffer.alloc(12)
    query.copy(header, 0, 0, 2)
    // A recursive answer to a query, with its response code.
    header.writeUInt16BE(0x8180 | (typeof answer === 'string' ? faults[answer] : 0), 2)
    header.writeUInt16BE(1, 4)
    header.writeUInt16BE(records.length, 6)
    socket.send(Buffer.concat([header, query.subarray(12, end), ...records.map(recordOf)]), from.port, from.address)
  })
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve))
  t.after(() => socket.close())
  return { address: `127.0.0.1:${socket.address().port}`, names: known, asked: () => asked }
}

function questionOf(query: Buffer): { name: string; type: number; end: number } {
  const labels: string[] = []
  let at = 12
  for (let length = query.readUInt8(at++); length > 0; length = query.readUInt8(at++)) {
    labels.push(query.toString('latin1', at, at + length))
    at += length
  }
  return { name: labels.join('.').toLowerCase(), type: query.readUInt16BE(at), end: at + 4 }
}

function recordOf(record: DnsRecord): Buffer {
  const data = dataOf(record)
  const head = Buffer.alloc(12)
  // The owner is the question's name, which begins behind the header.
  head.writeUInt16BE(0xc00c, 0)
  head.writeUInt16BE(codes[record.type], 2)
  head.writeUInt16BE(1, 4)
  head.writeUInt16BE(data.length, 10)
  return Buffer.concat([head, data])
}

function dataOf(record: DnsRecord): Buffer {
  switch (record.type) {
    case 'A':
      return Buffer.from(record.address.split('.').map(Number))
    case 'AAAA': {
      const [left = '', right = ''] = record.address.split('::')
      const words = (text: string): number[] =>
        text.split(':').flatMap((word) => (word === '' ? [] : [parseInt(word, 16)]))
      const groups = [
        ...words(left),
        ...Array<number>(8 - words(left).length - words(right).length).fill(0),
        ...words(right),
      ]
      return Buffer.from(groups.flatMap((group) => [group >> 8, group & 255]))
    }
    case 'SRV': {
      const fixed = Buffer.alloc(6)
      fixed.writeUInt16BE(record.priority ?? 0, 0)
      fixed.writeUInt16BE(record.port, 4)
      const labels = record.target.split('.').map((label) => Buffer.from([label.length, ...Buffer.from(label)]))
      return Buffer.concat([fixed, ...labels, Buffer.from([0])])
    }
    default:
      return record satisfies never
  }
}
