import assert from 'node:assert/strict'
import { connect, createServer, type Socket } from 'node:net'
import { test, type TestContext } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { RouterError } from '../../src/errors.ts'
import { systemClock } from '../../src/zmtp/clock.ts'
import { encodeReady } from '../../src/zmtp/command.ts'
import { encodeMessage } from '../../src/zmtp/frame.ts'
import { encodeGreeting } from '../../src/zmtp/greeting.ts'
import { PubSocket } from '../../src/zmtp/pub-socket.ts'
import { SubSocket } from '../../src/zmtp/sub-socket.ts'
import { until } from '../support/until.ts'

const ports = { clock: systemClock, random: Math.random }

/** A TCP server that says something of its own to each connection. */
async function impostor(t: TestContext, greet: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    greet(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)
  return `tcp://127.0.0.1:${address.port}`
}

function subscriber(t: TestContext, limits: ConstructorParameters<typeof SubSocket>[0]['limits'] = {}) {
  const seen = { faults: [] as RouterError[], messages: [] as string[], connected: 0, disconnected: 0 }
  const sub = new SubSocket({
    ...ports,
    topics: [''],
    limits: { reconnectFirstMs: 2, reconnectMaxMs: 10, ...limits },
    onMessage: (frames) => seen.messages.push(frames.join('|')),
    onConnected: () => seen.connected++,
    onDisconnected: () => seen.disconnected++,
    onFault: (fault) => seen.faults.push(fault),
  })
  t.after(() => sub.close())
  return { sub, seen }
}

const publisherHello = Buffer.concat([encodeGreeting(), Buffer.from(encodeReady('PUB', Buffer.alloc(0)))])

for (const [what, bytes, message] of [
  ['speaks HTTP', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), /first byte/],
  ['asks for CURVE', Buffer.concat([encodeGreeting().subarray(0, 12), Buffer.from('CURVE'.padEnd(52, '\0'))]), /CURVE/],
  ['speaks ZMTP 2', Buffer.concat([Buffer.of(0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 1), Buffer.alloc(53)]), /before 3\.0/],
  ['is a ROUTER', Buffer.concat([encodeGreeting(), Buffer.from(encodeReady('ROUTER', Buffer.alloc(0)))]), /ROUTER/],
  ['talks before READY', Buffer.concat([encodeGreeting(), encodeMessage([Buffer.from('x')])]), /before READY/],
  ['sends reserved flags', Buffer.concat([publisherHello, Buffer.of(0xf0)]), /reserved flags/],
  ['says nothing', Buffer.alloc(0), /no handshake within 30 ms/],
] as const) {
  test(`a peer that ${what} is counted, dropped and dialled again`, async (t) => {
    let dialled = 0
    const endpoint = await impostor(t, (socket) => {
      dialled++
      socket.write(bytes)
    })
    const { sub, seen } = subscriber(t, { handshakeTimeoutMs: 30 })
    sub.connect(endpoint)
    await until(() => dialled >= 3 && seen.faults.length >= 2, 'it was dialled three times')
    assert.equal(seen.faults[0]?.code, 'ZMTP_PROTOCOL')
    assert.match(seen.faults[0].message, message)
  })
}

test('of a backlog a bounded part is read before others get their turn', async (t) => {
  const thread = new Worker(new URL('flood.thread.ts', import.meta.url))
  t.after(() => thread.terminate())
  const port = await new Promise<number>((resolve) => thread.once('message', resolve))
  let inThisTurn = 0
  const most = async (maxBytesPerTurn: number): Promise<number> => {
    const sub = new SubSocket({ ...ports, topics: [''], limits: { maxBytesPerTurn }, onMessage: () => inThisTurn++ })
    sub.connect(`tcp://127.0.0.1:${port}`)
    const perTurn: number[] = []
    for (let messages = 0; messages < 4000; messages += inThisTurn) {
      inThisTurn = 0
      await nextTurn()
      perTurn.push(inThisTurn)
      // The kernel keeps more for readers that are fast at times and away at others.
      if (perTurn.length % 10 === 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10)
    }
    await sub.close()
    return Math.max(...perTurn)
  }
  const unbounded = await most(Number.MAX_SAFE_INTEGER)
  const bounded = await most(128 * 1024)
  // The limit, and what was already on its way when it was reached.
  assert.ok(bounded <= 8, `${bounded} messages of 32 KiB in one turn; without a limit ${unbounded}`)
  assert.ok(unbounded > 8, `nothing was to be bounded: ${unbounded} messages in one turn`)
})

test('random bytes before and after the handshake never throw', async (t) => {
  let state = 12345
  const noise = (length: number) =>
    Buffer.from(Uint8Array.from({ length }, () => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 24))
  let dialled = 0
  const endpoint = await impostor(t, (socket) => {
    dialled++
    if (dialled % 2 === 0) socket.write(publisherHello)
    socket.end(noise(1 + ((dialled * 37) % 3000)))
  })
  const { sub, seen } = subscriber(t, { reconnectMaxMs: 2 })
  sub.connect(endpoint)
  await until(() => dialled > 150, 'enough noise was heard', 10_000)
  for (const fault of seen.faults) assert.ok(fault instanceof RouterError)
})

test('a subscriber finds its publisher again after the publisher restarts on the same port', async (t) => {
  const first = new PubSocket(ports)
  const port = await first.bind('tcp://127.0.0.1:0')
  const { sub, seen } = subscriber(t)
  sub.connect(`tcp://127.0.0.1:${port}`)
  await until(() => first.subscribers === 1, 'it is subscribed')
  first.send([Buffer.from('t'), Buffer.from('1')])
  await until(() => seen.messages.length === 1, 'the first message arrived')
  first.dropConnections()
  await first.close()
  await until(() => seen.disconnected === 1 && seen.faults.length > 0, 'the loss and a refused attempt were told')
  const second = new PubSocket(ports)
  t.after(() => second.close())
  await second.bind(`tcp://127.0.0.1:${port}`)
  await until(() => second.subscribers === 1, 'it is subscribed again')
  second.send([Buffer.from('t'), Buffer.from('2')])
  await until(() => seen.messages.length === 2, 'the second message arrived')
  assert.equal(seen.connected, 2)
  assert.equal(seen.faults[0]?.code, 'UPSTREAM_UNREACHABLE')
})

test('a publisher that falls silent after PINGs is a lost subscription', async (t) => {
  const endpoint = await impostor(t, (socket) => socket.write(publisherHello))
  const { sub, seen } = subscriber(t, { pingEveryMs: 10 })
  sub.connect(endpoint)
  await until(() => seen.disconnected === 1, 'the silence was noticed')
  assert.match(seen.faults[0]?.message ?? '', /silent for 30 ms after a PING/)
})

test('a 3.0 publisher gets its subscription as a message and no PING', async (t) => {
  const received: Buffer[] = []
  const hello = Buffer.from(publisherHello)
  hello[11] = 0
  const endpoint = await impostor(t, (socket) => {
    socket.on('data', (chunk) => received.push(chunk))
    socket.write(hello)
  })
  const { sub, seen } = subscriber(t, { pingEveryMs: 10 })
  sub.connect(endpoint)
  await until(() => Buffer.concat(received).includes(Buffer.of(0, 1, 1)), 'the subscription arrived')
  await assert.rejects(until(() => seen.disconnected > 0, 'the connection is lost', 150))
  assert.equal(Buffer.concat(received).includes('PING'), false)
})

test('a subscriber that does not read loses messages, which are counted, and others lose none', async (t) => {
  const pub = new PubSocket({ ...ports, limits: { highWaterMarkMessages: 50 } })
  t.after(() => pub.close())
  const port = await pub.bind('tcp://127.0.0.1:0')
  const stuck = connect(port, '127.0.0.1')
  t.after(() => stuck.destroy())
  stuck.write(Buffer.concat([encodeGreeting(), encodeReady('SUB', Buffer.alloc(0)), encodeMessage([Buffer.of(1)])]))
  await until(() => pub.subscribers === 1, 'the stuck one is subscribed')
  stuck.pause()
  const { sub, seen } = subscriber(t)
  sub.connect(`tcp://127.0.0.1:${port}`)
  await until(() => pub.subscribers === 2, 'both are subscribed')
  for (let i = 0; i < 400; i++) {
    pub.send([Buffer.from('t'), Buffer.from(String(i)), Buffer.alloc(100_000)])
    await until(() => seen.messages.length === i + 1, `message ${i} arrived`)
  }
  assert.ok(pub.dropped > 0)
})

test('connections over the limit of a bound socket are closed and told', async (t) => {
  const faults: RouterError[] = []
  const sub = new SubSocket({
    ...ports,
    topics: [''],
    limits: { maxPeers: 1 },
    onMessage: () => undefined,
    onFault: (fault) => faults.push(fault),
  })
  t.after(() => sub.close())
  const port = await sub.bind('tcp://127.0.0.1:0')
  const sockets = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')]
  t.after(() => sockets.forEach((socket) => socket.destroy()))
  await until(() => faults.length === 1, 'the second connection was refused')
  assert.match(faults[0]?.message ?? '', /More than 1 connections/)
})

test('a port that is taken is a PORT_IN_USE', async (t) => {
  const pub = new PubSocket(ports)
  t.after(() => pub.close())
  const port = await pub.bind('tcp://127.0.0.1:0')
  await assert.rejects(new PubSocket(ports).bind(`tcp://127.0.0.1:${port}`), { code: 'PORT_IN_USE' })
})

test('close frees the port and ends every connection', async () => {
  const pub = new PubSocket(ports)
  const port = await pub.bind('tcp://*:0')
  let connected = 0
  let disconnected = 0
  const sub = new SubSocket({
    ...ports,
    topics: ['x'],
    onMessage: () => undefined,
    onConnected: () => connected++,
    onDisconnected: () => disconnected++,
  })
  sub.connect(`tcp://localhost:${port}`)
  await until(() => connected === 1, 'it is connected')
  await Promise.all([pub.close(), sub.close()])
  assert.equal(disconnected, 1)
  const again = new PubSocket(ports)
  assert.equal(await again.bind(`tcp://*:${port}`), port)
  await again.close()
})
