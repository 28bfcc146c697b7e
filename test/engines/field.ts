import { agentsAtWork, type AgentOptions, type AgentTurn } from './agents.ts'
import { eventually, generate, json } from './client.ts'
import { Exchanges, type OwnRule } from './exchanges.ts'
import type { Journal } from './journal.ts'
import type { Report } from './report.ts'
import type { Router } from './router.ts'
import type { DecisionRecord } from '../../src/routing/decisions.ts'

export interface FieldOptions {
  readonly report: Report
  readonly router: Router
  readonly blockSize: number
  /** What each worker tells, by its id. */
  readonly journals: ReadonlyMap<string, Journal>
  /** Whether the engine tells the token ids of a prompt; else the router is asked for them. */
  readonly tellsTokens: boolean
  readonly rules?: readonly OwnRule[]
}

const quietMs = 10_000
const asked = 60

/** Agents at work through the router, compared with what the engines tell: in their answers and by their events. */
export class Field {
  readonly #o: FieldOptions
  readonly exchanges: Exchanges
  failed = 0

  constructor(options: FieldOptions) {
    this.#o = options
    this.exchanges = new Exchanges(options.blockSize, options.rules)
  }

  async work(requests: number, options: AgentOptions): Promise<void> {
    const startMs = performance.now()
    await agentsAtWork(requests, options, (turn) => this.#send(turn))
    const seconds = (performance.now() - startMs) / 1000
    this.#o.report.say(`${requests} requests in ${seconds.toFixed(0)} s, ${this.failed} failed`)
  }

  async #send(turn: AgentTurn): Promise<void> {
    const { router, tellsTokens } = this.#o
    const { title, messages, maxTokens, stream } = turn
    const body = {
      model: 'model',
      messages,
      max_tokens: maxTokens,
      temperature: 0,
      ...(stream ? { stream, stream_options: { include_usage: true } } : {}),
      ...(tellsTokens ? {} : { return_token_ids: undefined }),
    }
    const answer = await generate(`${router.url}/v1/chat/completions`, body).catch(() => null)
    if (answer === null) {
      this.failed++
      return
    }
    const answeredMs = Date.now()
    turn.answered(answer.content)
    const { time } = await router.decision(String(answer.reply.headers['x-request-id']))
    this.exchanges.add({
      title,
      worker: answer.worker ?? '',
      promptIds: tellsTokens ? answer.promptIds : await router.tokenize({ messages }),
      predicted: answer.predictedCachedTokens ?? 0,
      actual: answer.cachedTokens,
      decidedMs: Date.parse(time),
      answeredMs,
    })
  }

  /**
   * Tells how well predictions came true, and every difference with its cause; where the router hears no events there is
   * but one.
   */
  judge(leastRatio: number, hearsEvents = true): void {
    const { report, journals } = this.#o
    const read = this.exchanges.askEvents(journals)
    if (read > 0) report.say(`${read} answers without cached tokens: what the events say is taken`)
    const { ratio, coverage, predicted, actual } = this.exchanges.agreement()
    report.check(
      `agreement is at least ${percent(leastRatio)} at 90 % coverage`,
      ratio >= leastRatio && coverage >= 0.9,
      `${percent(ratio)} at ${percent(coverage)}; ${predicted} tokens predicted, ${actual} reported`,
    )
    if (!hearsEvents) return
    const differences = this.exchanges.differences(journals)
    const byCause = new Map<string, number>()
    for (const { exchange, cause } of differences) {
      byCause.set(cause ?? 'UNEXPLAINED', (byCause.get(cause ?? 'UNEXPLAINED') ?? 0) + 1)
      const { title, worker, promptIds } = exchange
      const figures = `${promptIds.length} tokens, predicted ${exchange.predicted}, engine ${exchange.actual}`
      report.say(`miss   ${title} on ${worker}: ${figures}: ${cause ?? 'UNEXPLAINED'}`)
    }
    for (const [cause, count] of byCause) report.say(`${count} × ${cause}`)
    report.equal('every difference has a cause', byCause.get('UNEXPLAINED') ?? 0, 0)
  }

  /** When all is quiet, the map holds what the events of each engine say, block by block and in sum. */
  async mapIsRight(): Promise<void> {
    const { report, router, journals } = this.#o
    for (const [worker, journal] of journals) {
      const same = await eventually(async () => {
        const { map } = await router.worker(worker)
        return map.blocks.gpu === journal.blocks() ? map.blocks.gpu : null
      }, quietMs)
      const { stored, removed, lost } = journal.counts
      report.check(
        `the map of ${worker} holds as many blocks as its events leave`,
        same !== null,
        `${same ?? (await router.worker(worker)).map.blocks.gpu} of ${journal.blocks()}; ${stored} stored, ${removed} removed, ${lost} batches lost`,
      )
    }
    const differing: string[] = []
    const recent = this.exchanges.all.slice(-asked)
    for (const { title, promptIds } of recent) {
      // One token more, since the last token of a prompt is in no block that counts.
      const prompt = [...promptIds, 0]
      const { candidates } = await json<DecisionRecord>(`${router.admin}/admin/explain`, { model: 'model', prompt })
      for (const [worker, journal] of journals) {
        const matched = candidates.find((candidate) => candidate.worker === worker)?.matchedBlocks
        const ours = (matched?.gpu ?? 0) + (matched?.host ?? 0) + (matched?.disk ?? 0)
        const theirs = journal.held(journal.namesOf(prompt), journal.now)
        if (ours !== theirs) differing.push(`${title} on ${worker}: map ${ours}, events ${theirs}`)
      }
    }
    report.check(
      `the last ${recent.length} prompts: the map knows what each engine holds of them`,
      differing.length === 0,
      differing.slice(0, 5).join('; '),
    )
  }
}

/** What the router itself thinks of the worker. */
export async function tellWorker(report: Report, router: Router, id: string): Promise<void> {
  const { agreement, degraded, nativeHash, findings } = await router.worker(id)
  const { predicted, actual, ratio, verified, requests } = agreement
  const checked = `${verified} of ${requests} requests verified`
  const hash = JSON.stringify(nativeHash)
  report.say(
    `the router of ${id}: ${predicted} predicted, ${actual} found, ratio ${ratio.toFixed(4)}, ${checked}; ${degraded ?? 'trusted'}; hash ${hash}; findings ${JSON.stringify(findings)}`,
  )
}

function percent(share: number): string {
  return `${(100 * share).toFixed(2)} %`
}
