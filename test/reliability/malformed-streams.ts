import type { ServerResponse } from 'node:http'
import { scriptedEngine } from '../support/scripted-engine.ts'
import { streamEnding } from './load.ts'
import { Verdict, type Scenario } from './scenario.ts'

const event = 'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
const end = 'data: [DONE]\n\n'

/** What an engine sends as a stream, by name, and how it must end for the client. */
const streams: readonly {
  readonly name: string
  readonly send: (response: ServerResponse) => void
  readonly endings: readonly string[]
}[] = [
  { name: 'lines that are no events', send: (out) => out.end(`nonsense\n\n{]\n\n${event}${end}`), endings: ['whole'] },
  { name: 'a line of 1 MB', send: (out) => out.end(`data: ${'x'.repeat(1_000_000)}\n\n${end}`), endings: ['whole'] },
  {
    name: 'an event of 64 MB without an end',
    send: (out) => {
      let left = 64
      const more = (): void => {
        if (left-- > 0 && !out.destroyed) out.write('x'.repeat(1024 * 1024), more)
        else out.end()
      }
      out.write('data: ')
      more()
    },
    endings: ['whole', 'error event', 'reset', 'refused'],
  },
  { name: 'bad UTF-8', send: (out) => out.end(Buffer.from(`data: \xff\xfe\n\n${end}`, 'latin1')), endings: ['whole'] },
  { name: 'no [DONE]', send: (out) => out.end(event + event), endings: ['error event', 'reset'] },
  {
    name: 'half an event at the end',
    send: (out) => out.end(`${event}data: {"cho`),
    endings: ['error event', 'reset'],
  },
  { name: 'bytes after [DONE]', send: (out) => out.end(`${event}${end}${event.repeat(100)}`), endings: ['whole'] },
  { name: 'two [DONE]', send: (out) => out.end(event + end + end), endings: ['whole'] },
  { name: '[DONE] and no end of the connection', send: (out) => void out.write(event + end), endings: ['whole'] },
]

export const malformedStreams: Scenario = {
  number: '25',
  fault: 'an engine sends malformed events, lines of 1 MB, bad UTF-8, no [DONE], bytes after it, or two of them',
  promise: 'the client never hangs and never takes a cut answer for a whole one; memory is capped',
  quick: true,
  async run(rig) {
    const verdict = new Verdict()
    let at = 0
    const engine = await scriptedEngine(rig, (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      streams[at]?.send(response)
    })
    const router = await rig.router([engine], { worker: { blockSize: 16 } })
    const client = rig.client(router)
    const before = router.rssMiB
    let slowestMs = 0
    let calls = 0
    for (at = 0; at < streams.length; at++) {
      const stream = streams[at]
      for (let round = 0; round < rig.size(10, 2); round++) {
        const sent = await client.chat({ stream: true, signal: AbortSignal.timeout(10_000) })
        calls++
        slowestMs = Math.max(slowestMs, sent.totalMs)
        const ending = streamEnding(sent)
        if (stream?.endings.includes(ending) !== true) verdict.add(`${stream?.name ?? ''}: ${ending}`, false)
      }
    }
    const grown = router.rssMiB - before
    verdict.add(
      `${streams.length} kinds of streams, each ended as it must; the slowest took ${Math.round(slowestMs)} ms`,
      slowestMs < 5000,
    )
    verdict.add(`memory grew by ${grown.toFixed(0)} MiB`, grown < 100)
    const retries = await router.metric('retries_total')
    verdict.add(
      `${engine.received.length} upstream calls for ${calls} requests and ${retries} retries`,
      engine.received.length <= calls + retries,
    )
    return verdict.finding()
  },
}
