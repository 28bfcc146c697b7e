/**
 * CPU of the router process per small request, against a bare node:http + undici.dispatch pass-through proxy measured
 * beside it: same upstream, same load, rounds interleaved. The text prompt repeats, so that its tokens come from the
 * cache; what tokenizing a new one costs, bench/micro/tokenize.ts says.
 */
import { Pool } from 'undici'
import { median, printResults, type BenchResult } from '../result.ts'
import { cpuNanoseconds, startMeasured, type MeasuredProcess } from './measured-process.ts'

const concurrency = 32
const requestsARound = 4000
const rounds = 7
const kinds = ['bare', 'ids', 'text', 'keys', 'tls'] as const
type Kind = (typeof kinds)[number]
const more = {
  keys: 'one of 100 API keys with three limits, requests counted against a worker’s places, a trusted proxy in front',
  tls: 'TLS on the public port, connections kept',
}

export async function run(): Promise<BenchResult[]> {
  const upstream = await startMeasured(['bench/load/upstream.ts'])
  const bare = await startMeasured(['bench/load/bare-proxy.ts', upstream.url])
  const router = await startMeasured(['bench/load/router.ts', upstream.url])
  const keyed = await startMeasured(['bench/load/router.ts', upstream.url, '-', 'keys'])
  const secured = await startMeasured(['bench/load/router.ts', upstream.url, '-', 'tls'])
  try {
    const bodies = {
      ids: JSON.stringify({ model: 'model', prompt: Array.from({ length: 64 }, (_, i) => 1000 + i), max_tokens: 4 }),
      text: JSON.stringify({
        model: 'model',
        prompt: 'The quick brown fox jumps over the lazy dog. '.repeat(6),
        max_tokens: 4,
      }),
    }
    const samples = { bare: [], ids: [], text: [], keys: [], tls: [] } as Record<Kind, number[]>
    for (let round = -1; round < rounds; round++) {
      const measured = {
        bare: await cpuPerRequest(bare, bodies.ids),
        ids: await cpuPerRequest(router, bodies.ids),
        text: await cpuPerRequest(router, bodies.text),
        keys: await cpuPerRequest(keyed, bodies.text, {
          authorization: 'Bearer bench-50',
          'x-forwarded-for': '10.1.2.3',
        }),
        tls: await cpuPerRequest(secured, bodies.text),
      }
      // The first round warms the compilers up.
      if (round < 0) continue
      for (const key of kinds) samples[key].push(measured[key])
    }
    const ratios = samples.text.map((us, i) => us / (samples.bare[i] ?? NaN))
    return [
      { name: 'bare proxy, CPU per request', unit: 'µs', value: median(samples.bare), samples: samples.bare },
      {
        name: 'router, token-id prompt, CPU per request',
        unit: 'µs',
        value: median(samples.ids),
        samples: samples.ids,
      },
      {
        name: 'router, 60-token text prompt, CPU per request',
        unit: 'µs',
        value: median(samples.text),
        samples: samples.text,
      },
      {
        name: 'router / bare proxy, text prompt',
        unit: 'ratio',
        value: median(ratios),
        samples: ratios,
        goal: '≤ 1.5',
        met: median(ratios) <= 1.5,
      },
      ...(['keys', 'tls'] as const).map((kind) => {
        const added = samples[kind].map((us, i) => us - (samples.text[i] ?? NaN))
        return { name: `${more[kind]}: CPU on top, per request`, unit: 'µs', value: median(added), samples: added }
      }),
    ]
  } finally {
    for (const server of [router, keyed, secured, bare, upstream]) server.process.kill()
  }
}

async function cpuPerRequest(
  server: MeasuredProcess,
  body: string,
  more: Readonly<Record<string, string>> = {},
): Promise<number> {
  const pool = new Pool(server.url, {
    connections: concurrency,
    pipelining: 1,
    connect: { rejectUnauthorized: false },
  })
  const before = cpuNanoseconds(server)
  let left = requestsARound
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      while (left-- > 0) {
        const answer = await pool.request({
          path: '/v1/completions',
          method: 'POST',
          headers: { 'content-type': 'application/json', ...more },
          body,
        })
        await answer.body.dump()
        if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}`)
      }
    }),
  )
  const spent = cpuNanoseconds(server) - before
  await pool.close()
  return spent / requestsARound / 1000
}

if (import.meta.main) printResults(await run())
