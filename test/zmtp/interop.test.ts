// Our sockets against libzmq (npm zeromq), in both directions.
import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import * as zmq from 'zeromq'
import { systemClock } from '../../src/zmtp/clock.ts'
import { DealerSocket } from '../../src/zmtp/dealer-socket.ts'
import { PubSocket } from '../../src/zmtp/pub-socket.ts'
import { RouterSocket } from '../../src/zmtp/router-socket.ts'
import { SubSocket } from '../../src/zmtp/sub-socket.ts'
import { until } from '../support/until.ts'

const ports = { clock: systemClock, random: Math.random }

function theirs<Socket extends { close(): void; linger?: number }>(t: TestContext, socket: Socket): Socket {
  socket.linger = 0
  t.after(() => socket.close())
  return socket
}

function ours<Socket extends { close(): Promise<void> }>(t: TestContext, socket: Socket): Socket {
  t.after(() => socket.close())
  return socket
}

const payload = (bytes: number) => Buffer.alloc(bytes, 0x5a)

test('SUB receives from a libzmq publisher, short and long frames, in order and only its topics', async (t) => {
  const pub = theirs(t, new zmq.Publisher({ sendHighWaterMark: 0 }))
  await pub.bind('tcp://127.0.0.1:*')
  const got: string[] = []
  let peers = 0
  const sub = ours(
    t,
    new SubSocket({
      ...ports,
      topics: ['kv@', 'load'],
      onMessage: (frames) =>
        got.push(frames.map((frame) => (frame.length > 40 ? String(frame.length) : frame.toString())).join('|')),
      onConnected: () => peers++,
    }),
  )
  sub.connect(pub.lastEndpoint ?? '')
  await until(() => peers === 1, 'the publisher is connected')
  let round = 0
  while (got.length === 0) await pub.send(['kv@probe', String(round++)])
  await pub.send(['other', 'not wanted'])
  const expected: string[] = []
  for (let i = 0; i < 2_000; i++) {
    const bytes = [1, 39, 255, 256, 5_000, 70_000][i % 6] ?? 0
    await pub.send([i % 2 === 0 ? 'kv@a' : 'load', String(i), payload(bytes)])
    expected.push(`${i % 2 === 0 ? 'kv@a' : 'load'}|${i}|${bytes > 40 ? bytes : 'Z'.repeat(bytes)}`)
  }
  await until(() => got.at(-1) === expected.at(-1), 'the last message has arrived')
  assert.deepEqual(
    got.filter((line) => !line.startsWith('kv@probe')),
    expected,
  )
})

test('a libzmq subscriber receives from PUB, filtered at the publisher', async (t) => {
  const asked: string[] = []
  const pub = ours(
    t,
    new PubSocket({ ...ports, onSubscription: (topic, wanted) => asked.push(`${wanted ? '+' : '-'}${topic}`) }),
  )
  const port = await pub.bind('tcp://127.0.0.1:0')
  const sub = theirs(t, new zmq.Subscriber())
  sub.connect(`tcp://127.0.0.1:${port}`)
  sub.subscribe('a', 'b')
  await until(() => asked.length === 2, 'both subscriptions have arrived')
  assert.equal(pub.send([Buffer.from('c'), payload(1)]), 0)
  for (let i = 0; i < 100; i++)
    assert.equal(pub.send([Buffer.from(i % 2 === 0 ? 'a1' : 'b'), Buffer.from(String(i)), payload(i * 10)]), 1)
  for (let i = 0; i < 100; i++) {
    const [topic, number, body] = await sub.receive()
    assert.deepEqual(
      [topic?.toString(), number?.toString(), body?.length],
      [i % 2 === 0 ? 'a1' : 'b', String(i), i * 10],
    )
  }
  sub.unsubscribe('a')
  await until(() => asked.length === 3, 'the topic is given up')
  assert.deepEqual(asked.toSorted(), ['+a', '+b', '-a'])
  assert.equal(pub.send([Buffer.from('a'), payload(1)]), 0)
})

test('a libzmq publisher that dials out reaches a bound SUB', async (t) => {
  const got: string[] = []
  const sub = ours(
    t,
    new SubSocket({
      ...ports,
      topics: [''],
      onMessage: (frames, peer) => got.push(`${peer.address} ${frames.join('|')}`),
    }),
  )
  const port = await sub.bind('tcp://127.0.0.1:0')
  for (const name of ['one', 'two']) {
    const pub = theirs(t, new zmq.Publisher())
    pub.connect(`tcp://127.0.0.1:${port}`)
    while (!got.includes(`127.0.0.1 ${name}|x`)) {
      await pub.send([name, 'x'])
      await new Promise(setImmediate)
    }
  }
})

test('our PUB that dials out reaches a bound libzmq subscriber', async (t) => {
  const sub = theirs(t, new zmq.Subscriber())
  await sub.bind('tcp://127.0.0.1:*')
  sub.subscribe('')
  // libzmq subscribes at a new peer only while its socket is in use.
  const received = sub.receive()
  const pub = ours(t, new PubSocket(ports))
  pub.connect(sub.lastEndpoint ?? '')
  await until(() => pub.subscribers === 1, 'it is subscribed')
  pub.send([Buffer.from('t'), Buffer.from('hello')])
  assert.deepEqual((await received).map(String), ['t', 'hello'])
})

test('DEALER asks a libzmq router and reads several answers', async (t) => {
  const router = theirs(t, new zmq.Router())
  await router.bind('tcp://127.0.0.1:*')
  const got: string[][] = []
  let ready = false
  const dealer = ours(
    t,
    new DealerSocket({
      ...ports,
      onMessage: (frames) => got.push(frames.map(String)),
      onConnected: () => (ready = true),
    }),
  )
  assert.equal(dealer.send([Buffer.from('too early')]), false)
  dealer.connect(router.lastEndpoint ?? '')
  await until(() => ready, 'the router is connected')
  assert.equal(dealer.send([Buffer.alloc(0), Buffer.from('start')]), true)
  const [identity, empty, request] = await router.receive()
  assert.deepEqual([empty?.length, request?.toString()], [0, 'start'])
  for (let i = 0; i < 50; i++) await router.send([identity ?? '', '', `answer ${i}`])
  await until(() => got.length === 50, 'all answers have arrived')
  assert.deepEqual(
    got,
    Array.from({ length: 50 }, (_, i) => ['', `answer ${i}`]),
  )
})

test('ROUTER answers libzmq dealers by identity, and a REQ by its envelope', async (t) => {
  const router = ours(
    t,
    new RouterSocket({
      ...ports,
      onMessage: (identity, frames) =>
        router.send(identity, [...frames.slice(0, -1), Buffer.from(`re: ${frames.at(-1)?.toString() ?? ''}`)]),
    }),
  )
  const port = await router.bind('tcp://127.0.0.1:0')
  const dealers = ['alpha', ''].map((routingId) => theirs(t, new zmq.Dealer(routingId === '' ? {} : { routingId })))
  for (const [index, dealer] of dealers.entries()) {
    dealer.connect(`tcp://127.0.0.1:${port}`)
    await dealer.send(['', `question ${index}`])
  }
  for (const [index, dealer] of dealers.entries())
    assert.deepEqual((await dealer.receive()).map(String), ['', `re: question ${index}`])
  const req = theirs(t, new zmq.Request())
  req.connect(`tcp://127.0.0.1:${port}`)
  await req.send('please')
  assert.deepEqual((await req.receive()).map(String), ['re: please'])
  assert.equal(router.send('00ffffffff', [Buffer.from('nobody')]), false)
  assert.equal(router.dropped, 1)
})

test('libzmq answers our PING, and we answer its own', async (t) => {
  const pub = theirs(t, new zmq.Publisher({ heartbeatInterval: 20, heartbeatTimeout: 100 }))
  await pub.bind('tcp://127.0.0.1:*')
  const events: string[] = []
  const sub = ours(
    t,
    new SubSocket({
      ...ports,
      topics: [''],
      limits: { pingEveryMs: 20 },
      onMessage: () => undefined,
      onConnected: (peer) => events.push(`connected 3.${peer.minor}`),
      onDisconnected: () => events.push('disconnected'),
    }),
  )
  sub.connect(pub.lastEndpoint ?? '')
  await until(() => events.length === 1, 'it is connected')
  // Quiet for many times what either side takes for a lost connection.
  await assert.rejects(until(() => events.length > 1, 'the connection is lost', 500))
  assert.deepEqual(events, ['connected 3.1'])
})
