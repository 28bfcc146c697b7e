import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { doorFor } from '../support/door.ts'
import { fuzz, type Chance } from '../support/fuzz.ts'
import { until } from '../support/until.ts'

const names = [
  'host',
  'Host',
  'content-length',
  'transfer-encoding',
  'content-type',
  'expect',
  'connection',
  'upgrade',
  'content-encoding',
  'authorization',
  'x-request-id',
  'te',
  'x',
]
const values = [
  'a',
  '0',
  '5',
  '-1',
  '99999999999999999999',
  'chunked',
  'gzip, chunked',
  'identity',
  '100-continue',
  'close',
  'keep-alive, x',
  'h2c',
  '',
  ' ',
  '\t',
  'application/json',
  'é',
  '"',
]

function request(chance: Chance): Buffer {
  const end = chance.oneIn(30) ? '\n' : '\r\n'
  const target = chance.oneIn(8)
    ? chance.pick(['*', 'http://a/echo', '/%', '/%00', '//', '/echo?x', 'echo', '/\ud800'])
    : '/echo'
  const headers = chance.list(8, () => `${chance.pick(names)}${chance.oneIn(30) ? ' ' : ''}:${chance.pick(values)}`)
  const body = chance.oneIn(3)
    ? ''
    : chance.pick(['hello', '5\r\nhello\r\n0\r\n\r\n', '5;x=y\r\nhello\r\n0\r\nt: u\r\n\r\n', 'g\r\n', '0\r\n\r\n'])
  const method = chance.oneIn(10) ? chance.pick(['GET', 'OPTIONS', 'CONNECT', 'PRI', 'post', '']) : 'POST'
  const head = [
    `${method} ${target} HTTP/1.${chance.oneIn(10) ? 0 : 1}`,
    ...(chance.oneIn(6) ? [] : ['host: a']),
    ...headers,
  ]
  const bytes = Buffer.from(head.join(end) + end + end + body, 'latin1')
  return chance.oneIn(3) ? chance.mutated(bytes) : bytes
}

test('any bytes on the port get an answer that is one, or none; nothing fails inside, and no byte stays held', async (t) => {
  const door = await doorFor(t, { limits: { bodyBytes: 4096 }, timeouts: { lingerMs: 20 } })
  const { port } = new URL(door.url)
  const statuses = new Map<string, number>()
  const one = async (chance: Chance): Promise<void> => {
    const socket = connect(Number(port), '127.0.0.1')
    let text = ''
    socket.on('data', (chunk) => (text += chunk.toString('latin1')))
    socket.on('error', () => undefined)
    await once(socket, 'connect')
    const bytes = Buffer.concat(Array.from({ length: 1 + chance.below(3) }, () => request(chance)))
    const cut = chance.below(bytes.length + 1)
    socket.write(bytes.subarray(0, cut))
    socket.end(bytes.subarray(cut))
    if (!socket.closed) await once(socket, 'close')
    for (const [, status = ''] of text.matchAll(/HTTP\/1\.1 (\d{3})/g)) {
      statuses.set(status, (statuses.get(status) ?? 0) + 1)
      assert.ok(!status.startsWith('5'), text)
    }
    assert.ok(text === '' || text.startsWith('HTTP/1.1 '), text.slice(0, 100))
  }
  await fuzz(t, one)
  await until(() => door.bodies.heldBytes === 0, 'all bytes are given back')
  assert.deepEqual(
    door.log.filter(({ level }) => level === 'error'),
    [],
  )
  assert.ok((statuses.get('200') ?? 0) > 0 && (statuses.get('400') ?? 0) > 0)
  t.diagnostic(
    [...statuses]
      .sort()
      .map(([status, count]) => `${status}: ${count}`)
      .join(', '),
  )
})
