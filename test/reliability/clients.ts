import { setTimeout as after } from 'node:timers/promises'
import { model, prose } from '../support/fleet.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'
import { streamEnding, type Sent } from './load.ts'
import type { EngineProcess } from './processes.ts'
import { percentile, tally, Verdict, type Scenario } from './scenario.ts'
import { slowReader } from './slow-client.ts'

const leaving: Scenario = {
  number: '13',
  fault: 'clients close in the middle of 200 streams',
  promise: 'the engine sees each abort in ≤ 100 ms p99; in-flight counters return to 0',
  quick: true,
  async run(rig) {
    const [engine] = (await rig.engines(1)) as [EngineProcess]
    const router = await rig.router([engine])
    const client = rig.client(router)
    const streams = rig.size(200, 40)
    const delays: number[] = []
    // So many are open that the others go on while one leaves.
    const open: { leave: AbortController; ended: Promise<unknown> }[] = []
    for (let index = 0; index < streams; index++) {
      const leave = new AbortController()
      const begun = new Promise<void>((resolve) => {
        const ended = client.chat({ stream: true, maxTokens: 4000, signal: leave.signal, onFirstByte: resolve })
        open.push({ leave, ended })
      })
      await begun
      const oldest = open.length > 16 ? open.shift() : undefined
      if (oldest !== undefined) delays.push(await abortDelayMs(engine, oldest.leave))
    }
    for (const { leave } of open) delays.push(await abortDelayMs(engine, leave))
    await router.idle()
    const { aborted, running } = await engine.counters()
    const p99 = percentile(delays, 0.99)
    const verdict = new Verdict()
    verdict.add(`${aborted} of ${streams} aborts seen, ${running} still running`, aborted === streams && running === 0)
    verdict.add(`p50 ${percentile(delays, 0.5).toFixed(1)} ms, p99 ${p99.toFixed(1)} ms`, p99 <= 100)
    verdict.add('nothing is left in flight')
    verdict.add(`${await engine.calls()} upstream calls for ${streams} requests`, (await engine.calls()) === streams)
    return verdict.finding(delays)
  },
}

/** Leaves, and answers when the engine noticed by the machine's clock, which all processes share. */
async function abortDelayMs(engine: EngineProcess, leave: AbortController): Promise<number> {
  const { aborted } = await engine.counters()
  const leftMs = Number(process.hrtime.bigint()) / 1e6
  leave.abort()
  let lastAbortMs = 0
  await until(async () => {
    const counters = await engine.counters()
    lastAbortMs = counters.lastAbortMs ?? 0
    return counters.aborted > aborted
  }, 'the engine sees the abort')
  return lastAbortMs - leftMs
}

const leavingQueue: Scenario = {
  number: '14',
  fault: 'clients close while they are queued',
  promise: 'their requests are never sent upstream',
  quick: true,
  async run(rig) {
    const [engine] = (await rig.engines(1)) as [EngineProcess]
    const admission = { saturation: { requestsPerWorker: 1 }, queue: { requests: 256, timeoutMs: 60_000 } }
    const router = await rig.router([engine], { config: { admission } })
    const client = rig.client(router)
    const busy = new AbortController()
    const running = new Promise<void>((resolve) => {
      void client.chat({ stream: true, maxTokens: 4000, signal: busy.signal, onFirstByte: resolve })
    })
    await running
    const count = rig.size(100, 20)
    const leave = new AbortController()
    const queued = client.burst(count, () => ({ signal: leave.signal }))
    await until(async () => (await router.metric('admission_queued_requests')) === count, 'all are queued')
    leave.abort()
    await queued
    await until(async () => (await router.metric('admission_queued_requests')) === 0, 'the queue is empty')
    busy.abort()
    await router.idle()
    const last = await client.chat()
    const calls = await engine.calls()
    const verdict = new Verdict()
    verdict.add(`${count} left the queue; ${calls - 2} of them reached the engine`, calls === 2)
    verdict.add(`the next request got ${last.status}`, last.status === 200)
    return verdict.finding()
  },
}

const slowReaders: Scenario = {
  number: '15',
  fault: '50 clients read 1 kB/s of streams that the engine would send at once',
  promise: 'the router’s memory grows < 50 MB (back-pressure); the engine is held up',
  quick: false,
  async run(rig) {
    const event = Buffer.from(`data: ${'x'.repeat(16 * 1024 - 8)}\n\n`)
    const perStream = 64 * 1024 * 1024
    let written = 0
    const engine = await scriptedEngine(rig, (request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      let left = request.body.includes('"slow"') ? perStream : perStream / 8
      const pump = (): void => {
        while (left > 0 && !response.destroyed) {
          left -= event.length
          written += event.length
          if (!response.write(event)) {
            response.once('drain', pump)
            return
          }
        }
        response.end('data: [DONE]\n\n')
      }
      pump()
    })
    const router = await rig.router([engine], { worker: { blockSize: 16 } })
    const client = rig.client(router)
    // As much goes through at full speed first, so that what it leaves for the garbage collector is not taken for growth.
    for (let round = 0; round < 10; round++) await client.burst(5, () => ({ stream: true }))
    const before = router.rssMiB
    written = 0
    const readers = Array.from({ length: 50 }, () => slowReader(router.url, { content: 'slow', bytesPerSecond: 1024 }))
    rig.after(() => readers.forEach((reader) => reader.leave()))
    const samples: number[] = []
    for (let second = 0; second < rig.size(30, 5); second++) {
      await after(1000)
      samples.push(router.rssMiB - before)
    }
    const most = Math.max(...samples)
    const writtenBefore = written
    await after(1000)
    const lastSecond = written - writtenBefore
    const other = await client.chat({ stream: true })
    const verdict = new Verdict()
    verdict.add(`memory grew by ${most.toFixed(1)} MiB`, most < 50)
    verdict.add(
      `${(written / 2 ** 20).toFixed(0)} of ${(50 * perStream) / 2 ** 20} MiB were taken from the engine, ${(lastSecond / 2 ** 20).toFixed(1)} in the last second`,
      written < 25 * perStream,
    )
    verdict.add(`another client meanwhile: ${other.status}, ${other.totalMs.toFixed(0)} ms`, other.status === 200)
    verdict.add(`${engine.received.length} upstream calls for 101 requests`, engine.received.length === 101)
    return verdict.finding(samples)
  },
}

const longPrompts: Scenario = {
  number: '16',
  fault: '20 prompts of 100,000 tokens at once; then 150 conversations of 220 KB at once',
  promise: 'event-loop delay p99 < 50 ms; > 129 requests/s and first token < 1.1 s',
  quick: false,
  async run(rig) {
    const engine = await scriptedEngine(rig, (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).end('data: 1\n\ndata: [DONE]\n\n')
    })
    const router = await rig.router([engine], { worker: { blockSize: 16 } })
    const client = rig.client(router)
    await client.burst(20, () => ({ stream: true }))
    const long = Array.from({ length: rig.size(20, 4) }, (_, index) => prose(`long ${index}`, 44_000))
    await router.metricsText()
    const first = await client.burst(long.length, (index) => ({ stream: true, content: long[index] ?? '' }))
    const delayMs = 1000 * (await router.metric('event_loop_delay_seconds', { quantile: '0.99' }))
    const tokens = (await router.metric('prompt_tokens_total')) / long.length
    const verdict = new Verdict()
    verdict.add(`${long.length} prompts of ${Math.round(tokens / 1000)}k tokens: ${tally(first.map(streamEnding))}`)
    verdict.add(`event-loop delay p99 ${delayMs.toFixed(1)} ms`, delayMs < 50)
    const clients = rig.size(150, 10)
    const texts = Array.from({ length: clients }, (_, index) => prose(`talk ${index}`, 45_000).slice(0, 220_000))
    const coldMs = performance.now()
    await client.burst(clients, (index) => ({ stream: true, content: texts[index] ?? '' }))
    const cold = (1000 * clients) / (performance.now() - coldMs)
    const turns = rig.size(10, 2)
    const startMs = performance.now()
    const sent = (
      await Promise.all(
        texts.map(async (text) => {
          const answers: Sent[] = []
          for (let turn = 0; turn < turns; turn++)
            answers.push(await client.post('/v1/chat/completions', nextTurn(text, turn), {}))
          return answers
        }),
      )
    ).flat()
    const rate = (1000 * sent.length) / (performance.now() - startMs)
    const ttft = sent.flatMap(({ firstByteMs }) => firstByteMs ?? [])
    const meanMs = ttft.reduce((sum, ms) => sum + ms, 0) / ttft.length
    verdict.add(`220 KB prompts never seen before: ${cold.toFixed(0)} requests/s`)
    verdict.add(`${sent.length} next turns of them: ${rate.toFixed(0)} requests/s`, rate > 129)
    verdict.add(
      `first token after ${meanMs.toFixed(0)} ms on average, p99 ${percentile(ttft, 0.99).toFixed(0)} ms`,
      meanMs < 1100,
    )
    verdict.add(
      tally(sent.map(streamEnding)),
      sent.every((one) => streamEnding(one) === 'whole'),
    )
    return verdict.finding()
  },
}

/** A conversation that begins with a long text and goes on with one more question each turn. */
function nextTurn(text: string, turn: number): string {
  const asked = Array.from({ length: turn + 1 }, (_, index) => [
    { role: 'assistant', content: 'Yes.' },
    { role: 'user', content: `And then, in turn ${index}?` },
  ]).flat()
  return JSON.stringify({ model, stream: true, max_tokens: 4, messages: [{ role: 'user', content: text }, ...asked] })
}

export const clients: readonly Scenario[] = [leaving, leavingQueue, slowReaders, longPrompts]
