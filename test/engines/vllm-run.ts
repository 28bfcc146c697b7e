import { join } from 'node:path'
import { seededRandom } from '../support/random.ts'
import { blockSize, Engine } from '../vllm/engine.ts'
import { install, makeModel } from '../vllm/install.ts'
import { Field, tellWorker } from './field.ts'
import { Journal } from './journal.ts'
import { Processes } from './processes.ts'
import type { Report } from './report.ts'
import { Router } from './router.ts'

/** Of both engines about what the agents have open; with what else they leave behind, evictions never end. */
const blocks = 160
const requests = 1_000
const agents = { agents: 3, conversations: 8, longest: 500 }
const eventsMs = 30_000

/** Warmroute before two real vLLM engines whose caches are too small for what their agents keep open. */
export async function vllmRun(report: Report): Promise<void> {
  report.section('vLLM')
  const installation = install((line) => report.say(line))
  const model = makeModel(installation, 'qwen3', (line) => report.say(line))
  const processes = new Processes(join(installation.folder, 'running.json'))
  const engines = [
    await Engine.at('engine 1', model, installation, processes),
    await Engine.at('engine 2', model, installation, processes),
  ]
  for (const engine of engines) engine.start(blocks)
  await Promise.all(engines.map((engine) => engine.ready()))
  report.say(`vLLM ${installation.vllmVersion}: two engines with ${blocks} blocks of ${blockSize}`)
  const journals = new Map<string, Journal>()
  for (const { url, eventsEndpoint } of engines)
    journals.set(url, await Journal.of({ endpoint: eventsEndpoint, blockSize, countsStores: true }))
  const urls = engines.map(({ url }) => url)
  const router = await Router.start(urls, model, join(installation.folder, 'logs', 'router.txt'), processes)
  for (const { name, url } of engines) {
    const live = await router.workerOnce(
      url,
      ({ state, events }) => state === 'healthy' && events.state === 'live',
      eventsMs,
    )
    report.check(`${name}: events are live`, live !== null)
  }
  report.section(`vLLM: ${requests} requests of ${agents.agents} agents`)
  const field = new Field({ report, router, blockSize, journals, tellsTokens: true })
  await field.work(requests, { ...agents, random: seededRandom(20_261_123) })
  field.judge(0.99)
  await field.mapIsRight()
  for (const { url } of engines) {
    await tellWorker(report, router, url)
  }
  for (const journal of journals.values()) await journal.close()
  processes.endAll()
}
