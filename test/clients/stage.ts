import type { TestContext } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { demoTokenizer, fleetFor, model, type Fleet } from '../support/fleet.ts'
import { scriptedEngine, type ScriptedEngine } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'
import type { Case, ProbeRequest } from './case.ts'
import { check, type Outcome } from './outcome.ts'
import { raw } from './wire.ts'

/** A router before one engine that answers each request as the case says that its header `x-case` names. */
export class Stage {
  readonly fleet: Fleet
  readonly engine: ScriptedEngine
  readonly #t: TestContext
  readonly #cases = new Map<string, Case>()

  constructor(t: TestContext, fleet: Fleet, engine: ScriptedEngine) {
    this.#t = t
    this.fleet = fleet
    this.engine = engine
    engine.script = ({ headers }, response) => {
      const id = String(headers['x-case'])
      // What was not to reach the engine is found by its count.
      const answer = this.#cases.get(id)?.answer ?? raw(500, 'not expected')
      answer(response, this.tries(id))
    }
  }

  get url(): string {
    return this.fleet.publicUrl
  }

  /** Runs all cases at once, then checks each as a test of its own. */
  play(name: string, cases: readonly Case[], probe: (request: ProbeRequest) => Promise<Outcome>): Promise<void> {
    return this.playAll(name, cases, (requests) =>
      Promise.all(requests.map((request) => Promise.race([probe(request), noEnd()]))),
    )
  }

  /** As `play`, where one probe takes all cases. */
  async playAll(
    name: string,
    cases: readonly Case[],
    probe: (requests: readonly ProbeRequest[]) => Promise<readonly Outcome[]>,
  ): Promise<void> {
    const requests = cases.map((one, at) => requestOf(one, `${name.replaceAll(' ', '-')}-${at}`))
    for (const [at, { id }] of requests.entries()) this.#cases.set(id, cases[at] as Case)
    const outcomes = await probe(requests)
    for (const [at, { id }] of requests.entries()) {
      const { name: fact, expected } = cases[at] as Case
      await this.#t.test(`${name}: ${fact}`, () => {
        check(outcomes[at], expected, { requestId: id, tries: this.tries(id) })
      })
    }
    await this.#t.test(`${name}: nothing is left behind`, () => this.#idle())
  }

  tries(id: string): number {
    return this.engine.received.filter(({ headers }) => headers['x-case'] === id).length
  }

  /** Answers whose connection was left open by the script end with those of their clients. */
  async #idle(): Promise<void> {
    await until(
      async () =>
        this.engine.open() === 0 && (await this.fleet.workers()).every(({ inFlight }) => inFlight.requests === 0),
      'nothing is in flight',
    )
  }
}

export async function stageFor(t: TestContext, config: object = {}): Promise<Stage> {
  const engine = await scriptedEngine(t, () => undefined)
  const pool = { tokenizer: demoTokenizer, blockSize: 16 }
  const pools = [
    { model, ...pool, workers: [{ url: engine.url }] },
    { model: 'idle', ...pool, workers: [] },
  ]
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], config: { pools, ...config } })
  return new Stage(t, fleet, engine)
}

const deadlineMs = 20_000

/** What is not over by now, e.g. since a client waits for a connection's end, never will be. */
async function noEnd(): Promise<Outcome> {
  await setTimeout(deadlineMs, undefined, { ref: false })
  const message = `no end within ${deadlineMs} ms`
  const error = { kind: '', status: null, message, type: null, code: null, param: null, requestId: null }
  return { error, text: '', requestId: null, durationMs: deadlineMs }
}

function requestOf(one: Case, id: string): ProbeRequest {
  const { api, leaves = false, timeoutMs = null } = one
  return { id, api, model: one.model ?? model, leaves, timeoutMs }
}
