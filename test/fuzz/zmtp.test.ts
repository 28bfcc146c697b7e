import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { RouterError } from '../../src/errors.ts'
import { systemClock } from '../../src/zmtp/clock.ts'
import { encodeReady, encodeSubscribe } from '../../src/zmtp/command.ts'
import { encodeCommandFrame, encodeMessage, FrameParser } from '../../src/zmtp/frame.ts'
import { encodeGreeting } from '../../src/zmtp/greeting.ts'
import { PubSocket } from '../../src/zmtp/pub-socket.ts'
import { SubSocket } from '../../src/zmtp/sub-socket.ts'
import { fuzz, type Chance } from '../support/fuzz.ts'
import { until } from '../support/until.ts'

function conversation(chance: Chance): Buffer {
  const part = (): Buffer =>
    chance.pick([
      () => encodeMessage(chance.list(5, () => chance.bytes(400))),
      () => encodeCommandFrame(chance.bytes(40)),
      () => encodeReady(chance.pick(['PUB', 'SUB', 'DEALER']), chance.bytes(20)),
      () => encodeSubscribe(chance.bytes(10)),
      () => chance.bytes(40),
      () => Buffer.from([2, 255, 255, 255, 255, 255, 255, 255, 255]),
      () => Buffer.from([chance.below(8), chance.below(256)]),
    ])()
  return Buffer.concat(Array.from({ length: 1 + chance.below(6) }, part))
}

test('frames, however cut and however wrong, are messages or one fault, the same for every cut', async (t) => {
  await fuzz(t, (chance) => {
    const bytes = chance.oneIn(3) ? chance.mutated(conversation(chance)) : conversation(chance)
    const parsed = (most: number): string => {
      const seen: string[] = []
      const parser = new FrameParser(
        { maxMessageBytes: 1000, maxFrames: 4, maxCommandBytes: 64 },
        {
          message: (frames) => seen.push(`m ${frames.map((frame) => frame.toString('hex')).join(',')}`),
          command: (body) => seen.push(`c ${body.toString('hex')}`),
        },
      )
      for (let at = 0; at < bytes.length;) {
        const end = at + 1 + chance.below(most)
        const fault = parser.push(Buffer.from(bytes.subarray(at, end)))
        if (fault !== null) {
          assert.ok(fault instanceof RouterError)
          return [...seen, fault.code].join('\n')
        }
        at = end
      }
      return seen.join('\n')
    }
    assert.equal(parsed(3), parsed(100_000))
  })
})

test('a port that engines dial in to takes any bytes, and goes on hearing the others', async (t) => {
  let heard = 0
  const faults: RouterError[] = []
  const options = { clock: systemClock, random: () => 0.5, onFault: (fault: RouterError) => faults.push(fault) }
  const sub = new SubSocket({ ...options, topics: ['kv@'], onMessage: () => heard++ })
  const port = await sub.bind('tcp://127.0.0.1:0')
  t.after(() => sub.close())
  await fuzz(t, async (chance) => {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => undefined)
    await once(socket, 'connect')
    if (!chance.oneIn(4)) socket.write(encodeGreeting())
    if (!chance.oneIn(4)) socket.write(encodeReady('PUB', Buffer.alloc(0)))
    socket.write(chance.oneIn(2) ? chance.mutated(conversation(chance)) : conversation(chance))
    if (chance.oneIn(2)) socket.destroy()
    else socket.end()
    socket.resume()
    if (!socket.closed) await once(socket, 'close')
  })
  const pub = new PubSocket({ ...options })
  t.after(() => pub.close())
  pub.connect(`tcp://127.0.0.1:${port}`)
  const before = heard
  await until(() => {
    pub.send([Buffer.from('kv@a'), Buffer.from('x')])
    return heard > before
  }, 'a good publisher is heard')
  assert.ok(faults.every((fault) => fault instanceof RouterError))
  t.diagnostic(`${faults.length} faults told`)
})
