import { jsonOf, type EngineAnswer, type EngineHttp } from './engine-http.ts'
import type { Engine, EngineSigns } from './engine.ts'
import { engines } from './engines.ts'
import { openai } from './engines/openai.ts'

/**
 * Asks an endpoint what kind of engine it is, by questions that change nothing whatever it is: some engines' answers at other
 * paths are given once only. One of an unknown kind is `openai`. Null: it cannot be reached, or does not answer properly yet.
 */
export async function detectEngine(
  http: EngineHttp,
  baseUrl: string,
  headers: Readonly<Record<string, string>>,
  timeoutMs: number,
): Promise<Engine | null> {
  const ask = (path: string): Promise<EngineAnswer | null> => http.ask(baseUrl + path, { headers, timeoutMs })
  const models = await ask('/v1/models')
  if (models === null || models.status >= 500) return null
  const answers = await Promise.all(['/server_info', '/version', '/kv_event_sources'].map(ask))
  const [info = null, version = null, sources = null] = answers
  const signs: EngineSigns = {
    owners: ownersOf(jsonOf(models)),
    serverInfo: recordOf(jsonOf(info)),
    version: recordOf(jsonOf(version)),
    eventSources: recordOf(jsonOf(sources)),
  }
  const known = Object.values(engines).find((engine) => engine !== openai && engine.recognizes(signs))
  if (known !== undefined) return known
  // One that was too slow to tell is not of an unknown kind for that.
  return answers.every((answer) => answer !== null) ? openai : null
}

function ownersOf(body: unknown): readonly string[] {
  const rows = recordOf(body)?.['data']
  if (!Array.isArray(rows)) return []
  return rows.flatMap((row: unknown) => {
    const owner = recordOf(row)?.['owned_by']
    return typeof owner === 'string' ? [owner] : []
  })
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> | null {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null
}
