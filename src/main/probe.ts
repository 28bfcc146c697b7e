import type { Log } from '../telemetry/log.ts'
import { probePrompts, probeTokenizer, type AskTokenize, type ProbeResult } from '../tokenize/probe.ts'
import type { PromptService } from '../tokenize/service.ts'
import { jsonOf, type EngineHttp } from '../workers/engine-http.ts'
import type { Worker } from '../workers/worker.ts'

export interface ProbeParts {
  readonly prompts: PromptService
  readonly http: EngineHttp
  readonly log: Log
}

/**
 * Compares our tokenizing with the worker's own /tokenize (decision 11). A difference is said loudly: this worker's
 * prefix matches would silently be worth nothing.
 */
export async function probeWorker(worker: Worker, parts: ProbeParts): Promise<ProbeResult> {
  const tokenizer = parts.prompts.tokenizer(worker.pool)
  if (tokenizer === null) return { kind: 'unverified', reason: 'unsupported' }
  const result = await probeTokenizer(tokenizer, askTokenize(worker, parts.http))
  if (result.kind === 'different') {
    parts.log.error(
      {
        worker: worker.id,
        model: worker.pool,
        probe: result.probe,
        token: result.at,
        ours: result.ours,
        theirs: result.theirs,
      },
      'tokenizing differs from the worker’s own: it is routed by load only; check the tokenizer directory and the chat template',
    )
  }
  return result
}

/** What differs, by the prompt that showed it; null: nothing, as far as could be asked. */
export function causeOfProbe(result: ProbeResult): 'template' | 'tokenizer' | null {
  if (result.kind !== 'different') return null
  return probePrompts[result.probe]?.kind === 'chat' ? 'template' : 'tokenizer'
}

function askTokenize(worker: Worker, http: EngineHttp): AskTokenize {
  return async (body) => {
    const answer = await http.ask(`${worker.origin}${worker.basePath}/tokenize`, {
      body: JSON.stringify({ model: worker.pool, ...body }),
      headers: worker.headers,
    })
    if (answer === null || answer.status >= 500) return 'unreachable'
    const tokens = (jsonOf(answer) as { tokens?: unknown } | null)?.tokens
    return Array.isArray(tokens) && tokens.every((token) => typeof token === 'number') ? tokens : 'unsupported'
  }
}
