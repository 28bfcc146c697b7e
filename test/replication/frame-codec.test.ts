import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { KvEvent, KvParent, StoreEvent } from '../../src/kv/batch.ts'
import type { LogFrame } from '../../src/replication/frame.ts'
import { decodeFrames, encodeFrame } from '../../src/replication/frame-codec.ts'

const record = <T>(model: { [Key in keyof T]: fc.Arbitrary<T[Key]> }): fc.Arbitrary<T> =>
  fc.record(model, { noNullPrototype: true })
const word = fc.integer({ min: 0, max: 0xffffffff })
const group = fc.integer({ min: 0, max: 65_535 })
const tier = fc.integer({ min: 0, max: 3 })
const words = (blocks: number) =>
  fc.array(word, { minLength: 2 * blocks, maxLength: 2 * blocks }).map((all) => Uint32Array.from(all))

const parent: fc.Arbitrary<KvParent> = fc.oneof(
  record({ kind: fc.constant('root' as const), keyLow: word, keyHigh: word }),
  record({ kind: fc.constant('block' as const), hashLow: word, hashHigh: word }),
)
const event: fc.Arbitrary<KvEvent> = fc.oneof(
  fc.constant({ kind: 'clear' as const }),
  fc.integer({ min: 0, max: 5 }).chain((blocks) =>
    fc.oneof(
      record({
        kind: fc.constant('store' as const),
        ...{ tier, group, parent, engineHashes: words(blocks), locals: words(blocks) },
      }),
      record({ kind: fc.constant('present' as const), tier, group, engineHashes: words(blocks) }),
      record({
        kind: fc.constant('remove' as const),
        ...{ tier: fc.option(tier), group, engineHashes: words(blocks) },
      }),
    ),
  ),
)
const other: fc.Arbitrary<StoreEvent> = record({
  part: fc.constantFrom('chunks' as const, 'shared' as const),
  blockSize: word,
  event,
})
const position = record({ sequence: fc.maxSafeNat(), timestamp: fc.double() })
const ofSession = { worker: fc.string({ maxLength: 60, unit: 'grapheme' }), session: fc.maxSafeNat() }
const frame: fc.Arbitrary<LogFrame> = fc.oneof(
  record({ kind: fc.constant('clear' as const), ...ofSession, reason: fc.string() }),
  record({ kind: fc.constant('mark' as const), ...ofSession, position: fc.option(position) }),
  record({
    kind: fc.constant('batch' as const),
    ...ofSession,
    batch: record({
      sequence: fc.maxSafeNat(),
      timestamp: fc.double(),
      previous: fc.option(position),
      blockSize: fc.option(fc.integer({ min: 1, max: 0xffffffff })),
      removedTwice: fc.nat(),
      events: fc.array(event, { maxLength: 4 }),
      others: fc.array(other, { maxLength: 2 }),
    }),
  }),
)

function decoded(bytes: Buffer): { frames: LogFrame[]; unread: number } {
  const frames: LogFrame[] = []
  const unread = decodeFrames(bytes, (one) => frames.push(one))
  return { frames, unread }
}

test('frames come back from their bytes as they were, wherever the bytes lie', () => {
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 5 }), fc.integer({ min: 0, max: 7 }), (frames, offset) => {
      const bytes = Buffer.concat([Buffer.alloc(offset), ...frames.map((one) => encodeFrame(one))])
      assert.deepEqual(decoded(bytes.subarray(offset)), { frames, unread: 0 })
    }),
  )
})

test('a frame of another version or kind is passed over, and those beside it are read', () => {
  const mark: LogFrame = { kind: 'mark', worker: 'http://w:1', session: 7, position: null }
  for (const place of [0, 5]) {
    const foreign = encodeFrame(mark)
    foreign[place] = 99
    const bytes = Buffer.concat([encodeFrame(mark), foreign, encodeFrame(mark)])
    assert.deepEqual(decoded(bytes), { frames: [mark, mark], unread: 1 })
  }
})

test('bytes of any kind are read to their end without harm', () => {
  fc.assert(
    fc.property(frame, fc.nat(), fc.integer({ min: 0, max: 255 }), fc.nat(), (one, at, value, cut) => {
      const bytes = encodeFrame(one)
      bytes[at % bytes.length] = value
      const { frames, unread } = decoded(bytes.subarray(0, cut % (bytes.length + 1)))
      assert.ok(frames.length <= 1 || unread > 0, 'no frame is made of thin air')
    }),
    { numRuns: 2000 },
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => decodeFrames(Buffer.from(bytes), () => undefined) >= 0),
  )
})
