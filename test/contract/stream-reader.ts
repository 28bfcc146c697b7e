import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import type { StreamEntry } from '../../src/events/stream/entry.ts'
import type { StreamReader, StreamReading } from '../../src/events/stream/reader.ts'
import { until } from '../support/until.ts'

/** Streams that a test writes to while something reads them. */
export interface WrittenStreams {
  readonly reader: StreamReader
  append(stream: string, name: string): Promise<void> | void
  /** Everything is gone, and ids begin again below those of before. */
  wipe(): Promise<void> | void
  cut(): void
  heal(): void
}

/** What was told, in words: `+`, `-`, the names of entries, `.` for having caught up. */
class Told {
  readonly words: string[] = []
  reading: StreamReading | null = null
  onEntries: ((names: readonly string[]) => void) | null = null

  static follow(t: TestContext, { reader }: WrittenStreams, stream: string): Told {
    const told = new Told()
    const namesOf = (entries: readonly StreamEntry[]) => entries.map(({ fields }) => fields[1]?.toString() ?? '')
    told.reading = reader.follow(
      stream,
      { retainMs: null },
      {
        connected: () => told.words.push('+'),
        disconnected: () => told.words.push('-'),
        entries: (entries) => {
          told.words.push(...namesOf(entries))
          told.onEntries?.(namesOf(entries))
        },
        caughtUp: () => told.words.push('.'),
      },
    )
    t.after(() => told.reading?.stop())
    return told
  }

  get names(): string[] {
    return this.words.filter((word) => word.length > 1)
  }

  async caughtUpWith(name: string): Promise<void> {
    await until(() => this.words.at(-1) === '.' && this.names.at(-1) === name, `all up to ${name} is told`, 15_000)
  }
}

const numbered = (from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, index) => `n${from + index}`)

/** What every reader of streams must do. */
export function streamReaderContract(kind: string, setUp: (t: TestContext) => Promise<WrittenStreams>): void {
  const appendAll = async (streams: WrittenStreams, stream: string, names: readonly string[]): Promise<void> => {
    for (const name of names) await streams.append(stream, name)
  }

  test(`${kind}: what a stream keeps is told from its oldest entry on, then what is appended`, async (t) => {
    const streams = await setUp(t)
    await appendAll(streams, 'a', numbered(0, 200))
    const told = Told.follow(t, streams, 'a')
    await told.caughtUpWith('n199')
    await streams.append('a', 'n200')
    await told.caughtUpWith('n200')
    assert.equal(told.words[0], '+')
    assert.deepEqual(told.names, numbered(0, 201))
  })

  test(`${kind}: a stream that is not there yet is an empty one`, async (t) => {
    const streams = await setUp(t)
    const told = Told.follow(t, streams, 'a')
    await until(() => told.words.length === 2, 'it is read')
    await streams.append('a', 'n0')
    await told.caughtUpWith('n0')
    assert.deepEqual(told.words, ['+', '.', 'n0', '.'])
  })

  test(`${kind}: after a rewind all is told once more, and nothing of the answer before`, async (t) => {
    const streams = await setUp(t)
    await appendAll(streams, 'a', numbered(0, 40))
    const told = Told.follow(t, streams, 'a')
    let before = 0
    told.onEntries = (names) => {
      if (!names.includes('n20')) return
      told.onEntries = null
      before = told.names.length
      told.reading?.rewind()
    }
    await told.caughtUpWith('n39')
    assert.deepEqual(told.names.slice(before), numbered(0, 40))
    told.reading?.rewind()
    await streams.append('a', 'n40')
    await told.caughtUpWith('n40')
    assert.deepEqual(told.names.slice(before + 40), numbered(0, 41))
  })

  test(`${kind}: after a time without a connection reading goes on where it stopped`, async (t) => {
    const streams = await setUp(t)
    await appendAll(streams, 'a', ['n0', 'n1'])
    const told = Told.follow(t, streams, 'a')
    await told.caughtUpWith('n1')
    streams.cut()
    await until(() => told.words.at(-1) === '-', 'the loss is told', 15_000)
    streams.heal()
    await appendAll(streams, 'a', ['n2', 'n3'])
    await told.caughtUpWith('n3')
    assert.deepEqual(told.words.filter((word) => word !== '.').join(' '), '+ n0 n1 - + n2 n3')
  })

  test(`${kind}: a stream that began anew is read from its oldest entry`, async (t) => {
    const streams = await setUp(t)
    await appendAll(streams, 'a', numbered(0, 10))
    const told = Told.follow(t, streams, 'a')
    await told.caughtUpWith('n9')
    await streams.wipe()
    await appendAll(streams, 'a', ['m0', 'm1'])
    await told.caughtUpWith('m1')
    assert.deepEqual(told.names, [...numbered(0, 10), 'm0', 'm1'])
  })

  test(`${kind}: several streams, and several readers of one, each get all in order`, async (t) => {
    const streams = await setUp(t)
    await appendAll(streams, 'a', numbered(0, 100))
    const first = Told.follow(t, streams, 'a')
    const other = Told.follow(t, streams, 'b')
    await first.caughtUpWith('n99')
    const second = Told.follow(t, streams, 'a')
    await appendAll(streams, 'a', numbered(100, 150))
    await appendAll(streams, 'b', numbered(0, 50))
    await Promise.all([first.caughtUpWith('n149'), second.caughtUpWith('n149'), other.caughtUpWith('n49')])
    await streams.append('a', 'n150')
    await Promise.all([first.caughtUpWith('n150'), second.caughtUpWith('n150')])
    assert.deepEqual([first.names, second.names], [numbered(0, 151), numbered(0, 151)])
    assert.deepEqual(other.names, numbered(0, 50))
  })

  test(`${kind}: who stopped is told nothing more, and the others are`, async (t) => {
    const streams = await setUp(t)
    const stopped = Told.follow(t, streams, 'a')
    const other = Told.follow(t, streams, 'a')
    await streams.append('a', 'n0')
    await Promise.all([stopped.caughtUpWith('n0'), other.caughtUpWith('n0')])
    stopped.reading?.stop()
    await streams.append('a', 'n1')
    await other.caughtUpWith('n1')
    assert.deepEqual(stopped.names, ['n0'])
  })
}
