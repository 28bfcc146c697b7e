import { streamReaderContract } from '../contract/stream-reader.ts'
import { FakeStreams } from '../support/fake-streams.ts'

streamReaderContract('streams in memory', () => {
  const streams = new FakeStreams()
  return Promise.resolve({
    reader: streams,
    append: (stream, name) => streams.append(stream, { name }),
    wipe: () => streams.wipe(),
    cut: () => streams.cut(),
    heal: () => streams.heal(),
  })
})
