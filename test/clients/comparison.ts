import assert from 'node:assert/strict'
import { join } from 'node:path'
import { demoTokenizer, postTo } from '../support/fleet.ts'
import { until } from '../support/until.ts'
import { freePorts, type Processes } from '../engines/processes.ts'
import { Router } from '../engines/router.ts'
import { folder, root } from './install.ts'
import { loadModel, type LoadGenerator, type Measured } from './load.ts'

/** Pairs of runs; what is compared are the medians of both sides. */
const rounds = 3
/** What an engine does before it reads a prompt; with a step of the engine the first token comes after about 20 ms. */
const latencyMs = 15
const maxAddedTtftMs = 3

/** Two equal engines, one of them behind a router; each is a process of its own. */
export interface Sides {
  readonly direct: string
  readonly routed: string
}

export async function startSides(processes: Processes): Promise<Sides> {
  const [direct, engine] = [await startEngine('direct', processes), await startEngine('routed', processes)]
  const log = join(folder, 'logs', 'router.txt')
  const router = await Router.start([engine], demoTokenizer, log, processes)
  await until(async () => (await router.worker(engine)).state === 'healthy', 'the router knows its engine', 10_000)
  return { direct, routed: router.url }
}

async function startEngine(name: string, processes: Processes): Promise<string> {
  const [http = 0, events = 0, replay = 0] = await freePorts(3)
  const url = `http://127.0.0.1:${http}`
  processes.start(
    process.execPath,
    [
      ...[join(root, 'bin', 'warmroute.js'), 'simulate', '--workers', '1', '--model', loadModel, '--faults'],
      ...['--http-port', String(http), '--events-port', String(events), '--replay-port', String(replay)],
      ...['--step-ms', '5', '--decode-ms', '0', '--prefill-rate', '1000000'],
    ],
    {},
    join(folder, 'logs', `${name}.txt`),
  )
  const answers = async (): Promise<boolean> => (await fetch(`${url}/health`).catch(() => null))?.status === 200
  await until(answers, 'the engine answers', 15_000)
  const fault = { kind: 'latency', ms: latencyMs, paths: ['/v1/chat/completions', '/v1/completions'] }
  assert.equal((await postTo(`${url}/simulator/fault`, fault)).status, 200)
  return url
}

export interface Comparison {
  readonly name: string
  readonly direct: readonly Measured[]
  readonly routed: readonly Measured[]
}

/** Measures both sides in turn, so that whatever else the machine does falls on both alike. */
export async function compare(generator: LoadGenerator, { direct, routed }: Sides): Promise<Comparison> {
  const comparison = { name: generator.name, direct: [] as Measured[], routed: [] as Measured[] }
  for (let round = 0; round < rounds; round++) {
    const [a, b] = round % 2 === 0 ? (['direct', 'routed'] as const) : (['routed', 'direct'] as const)
    for (const side of [a, b]) {
      const url = side === 'direct' ? direct : routed
      comparison[side].push(await generator.measure(url, `${side}-${round}`))
    }
  }
  return comparison
}

/** One row of the table in docs/clients.md. */
export function row({ name, direct, routed }: Comparison): string {
  const sum = (of: 'requests' | 'errors'): number => [...direct, ...routed].reduce((total, one) => total + one[of], 0)
  const pair = (of: 'ttftP50Ms' | 'ttftP99Ms' | 'itlP50Ms'): string => {
    const [a, b] = [median(direct, of), median(routed, of)]
    return `${a.toFixed(1)} → ${b.toFixed(1)} (${b < a ? '−' : '+'}${Math.abs(b - a).toFixed(1)})`
  }
  const cells = [name, sum('requests'), sum('errors'), pair('ttftP50Ms'), pair('ttftP99Ms'), pair('itlP50Ms')]
  return `| ${cells.join(' | ')} |`
}

export const heading = [
  '| tool | requests | errors | TTFT p50, ms | TTFT p99, ms | ITL p50, ms |',
  '|---|---|---|---|---|---|',
]

export function judge({ direct, routed }: Comparison): void {
  for (const { requests, errors } of [...direct, ...routed]) {
    assert.ok(requests > 0, 'nothing was measured')
    assert.equal(errors, 0, 'errors')
  }
  const addedMs = median(routed, 'ttftP50Ms') - median(direct, 'ttftP50Ms')
  assert.ok(addedMs <= maxAddedTtftMs, `the router adds ${addedMs.toFixed(1)} ms to the first token`)
}

function median(measured: readonly Measured[], of: keyof Measured): number {
  const values = measured.map((one) => one[of]).sort((a, b) => a - b)
  return values[Math.floor(values.length / 2)] ?? NaN
}
