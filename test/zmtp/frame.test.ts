import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { encodeCommandFrame, encodeMessage, FrameParser } from '../../src/zmtp/frame.ts'
import { decodeCommand } from '../../src/zmtp/command.ts'
import type { RouterError } from '../../src/errors.ts'

const limits = { maxMessageBytes: 4096, maxFrames: 8, maxCommandBytes: 512 }

function parse(chunks: readonly Buffer[], used = limits) {
  const seen: (string[] | string)[] = []
  const parser = new FrameParser(used, {
    message: (frames) => seen.push(frames.map((frame) => frame.toString('hex'))),
    command: (body) => seen.push(body.toString('hex')),
  })
  let fault: RouterError | null = null
  for (const chunk of chunks) {
    fault = parser.push(chunk)
    if (fault !== null) break
  }
  return { seen, fault }
}

function cut(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set(cuts.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b)
  return [...places, bytes.length].map((end, index) => bytes.subarray(index === 0 ? 0 : (places[index - 1] ?? 0), end))
}

const item = fc.oneof(
  fc.array(fc.uint8Array({ maxLength: 500 }), { minLength: 1, maxLength: 8 }),
  fc.uint8Array({ minLength: 1, maxLength: 400 }),
)

test('messages and commands come out as they went in, however the stream is cut', () => {
  fc.assert(
    fc.property(fc.array(item, { maxLength: 6 }), fc.array(fc.nat(20_000), { maxLength: 30 }), (items, cuts) => {
      const bytes = Buffer.concat(
        items.map((one) => (one instanceof Uint8Array ? encodeCommandFrame(one) : encodeMessage(one))),
      )
      const { seen, fault } = parse(cut(bytes, cuts), { ...limits, maxMessageBytes: 8 * 500 })
      assert.equal(fault, null)
      const hex = (one: Uint8Array) => Buffer.from(one).toString('hex')
      assert.deepEqual(
        seen,
        items.map((one) => (one instanceof Uint8Array ? hex(one) : one.map(hex))),
      )
    }),
  )
})

test('one byte at a time gives the same messages', () => {
  const bytes = encodeMessage([Buffer.from('topic'), Buffer.alloc(8), Buffer.alloc(300, 7)])
  const { seen } = parse([...bytes].map((byte) => Buffer.of(byte)))
  assert.deepEqual(seen, [['746f706963', '00'.repeat(8), '07'.repeat(300)]])
})

test('a frame within one chunk is not copied', () => {
  const bytes = encodeMessage([Buffer.from('a'), Buffer.from('payload')])
  const parser = new FrameParser(limits, {
    message: (frames) => frames.forEach((frame) => assert.equal(frame.buffer, bytes.buffer)),
    command: () => assert.fail(),
  })
  assert.equal(parser.push(bytes), null)
})

test('a message over a limit is refused from its header, before its body arrives', () => {
  const long = Buffer.alloc(9)
  long[0] = 2
  long.writeBigUInt64BE(4097n, 1)
  assert.equal(parse([long]).fault?.code, 'ZMTP_PROTOCOL')
  long.writeBigUInt64BE(0xffff_ffff_ffff_ffffn, 1)
  assert.equal(parse([long]).fault?.code, 'ZMTP_PROTOCOL')
  assert.match(
    parse([encodeMessage(Array.from({ length: 9 }, () => Buffer.alloc(1)))]).fault?.message ?? '',
    /8 frames/,
  )
  const parts = Array.from({ length: 5 }, () => Buffer.alloc(1000))
  assert.match(parse([encodeMessage(parts)]).fault?.message ?? '', /4096 bytes/)
})

test('a header that claims much makes no large buffer', () => {
  const header = Buffer.alloc(9)
  header[0] = 2
  header.writeBigUInt64BE(2n ** 40n, 1)
  const parser = new FrameParser(
    { ...limits, maxMessageBytes: 2 ** 41 },
    { message: () => undefined, command: () => undefined },
  )
  const before = process.memoryUsage().arrayBuffers
  assert.equal(parser.push(header), null)
  assert.equal(parser.push(Buffer.alloc(1000)), null)
  assert.ok(process.memoryUsage().arrayBuffers - before < 1_000_000)
})

test('reserved flags, and a command with MORE, are refused', () => {
  assert.match(parse([Buffer.of(8, 0)]).fault?.message ?? '', /reserved/)
  assert.match(parse([Buffer.of(5, 0)]).fault?.message ?? '', /MORE/)
})

test('random bytes and damaged streams end in messages or in one RouterError', () => {
  const good = Buffer.concat([
    encodeMessage([Buffer.from('t'), Buffer.alloc(8), Buffer.alloc(700)]),
    encodeCommandFrame(Buffer.from('\x04PING\0\0')),
  ])
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 200 }),
      fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 5 }),
      fc.array(fc.nat(900), { maxLength: 9 }),
      (noise, edits, cuts) => {
        const damaged = Buffer.from(good)
        for (const [at, value] of edits) damaged[at] = value
        for (const stream of [Buffer.from(noise), damaged]) {
          const { fault } = parse(cut(stream, cuts))
          if (fault !== null) assert.equal(fault.code, 'ZMTP_PROTOCOL')
        }
        decodeCommand(Buffer.from(noise))
      },
    ),
    { numRuns: 5_000 },
  )
})
