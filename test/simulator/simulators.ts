import type { TestContext } from 'node:test'
import { startSimulators, type Simulators, type SimulatorsOptions } from '../../src/simulator/simulate.ts'
import type { SimulatedWorker } from '../../src/simulator/worker.ts'
import { toyTokenizer } from './toy-tokenizer.ts'

/** Starts simulators with a toy tokenizer, ten times faster than life, for the length of a test. */
export async function simulators(t: TestContext, options: Partial<SimulatorsOptions> = {}): Promise<Simulators> {
  const started = await startSimulators({
    workers: 1,
    model: 'model',
    tokenizer: toyTokenizer(),
    ...options,
    worker: { timeScale: 10, ...options.worker },
  })
  t.after(() => started.stop())
  return started
}

export async function simulator(t: TestContext, options: Partial<SimulatorsOptions> = {}): Promise<SimulatedWorker> {
  const [worker] = (await simulators(t, options)).workers
  if (worker === undefined) throw new Error('no worker was started')
  return worker
}

export function post(
  worker: { readonly url: string },
  path: string,
  body: unknown,
  init: { readonly headers?: Readonly<Record<string, string>>; readonly signal?: AbortSignal } = {},
): Promise<Response> {
  return fetch(worker.url + path, {
    method: 'POST',
    ...init,
    headers: { 'content-type': 'application/json', ...init.headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })
}

/** The JSON of each `data:` event of a finished stream; the last is the text `[DONE]`. */
export function eventsOf(stream: string): unknown[] {
  return stream
    .split('\n\n')
    .filter((event) => event !== '')
    .map((event) => (event === 'data: [DONE]' ? '[DONE]' : (JSON.parse(event.replace(/^data: /, '')) as unknown)))
}
