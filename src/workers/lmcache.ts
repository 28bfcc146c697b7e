import type { EngineHttp } from './engine-http.ts'

/** So many leading tokens of a prompt are held by one LMCache instance. */
export interface Holding {
  readonly instance: string
  readonly tier: 'host' | 'disk' | 'shared'
  readonly tokens: number
}

/** Backends that are on the instance's own machine; any other one is taken for a store that all reach. */
const ownBackends: ReadonlyMap<string, Holding['tier']> = new Map([
  ['LocalCPUBackend', 'host'],
  ['LocalDiskBackend', 'disk'],
] as const)

const answerBytes = 256 * 1024

/** Asks LMCache's controller (0.5.6, `POST /lookup`) who holds a prompt; null where it does not answer in time. */
export async function askController(
  http: EngineHttp,
  url: string,
  tokens: Uint32Array,
  timeoutMs: number,
): Promise<readonly Holding[] | null> {
  const body = `{"tokens":[${tokens.join()}]}`
  const headers = { 'content-type': 'application/json' }
  const answer = await http.ask(`${url}/lookup`, { body, headers, timeoutMs, limitBytes: answerBytes })
  return answer?.status === 200 ? readLayout(answer.text) : null
}

/** `{"event_id", "layout_info": {"<instance>": ["<backend>", <tokens>]}}`; null where it is something else. */
export function readLayout(text: string): readonly Holding[] | null {
  let answer: unknown
  try {
    answer = JSON.parse(text)
  } catch {
    return null
  }
  const layout = isObject(answer) ? answer['layout_info'] : null
  if (!isObject(layout)) return null
  return Object.entries(layout).flatMap(([instance, place]): Holding[] => {
    const [backend, tokens] = Array.isArray(place) ? (place as unknown[]) : []
    if (typeof backend !== 'string' || typeof tokens !== 'number' || !Number.isSafeInteger(tokens) || tokens < 0)
      return []
    return [{ instance, tier: ownBackends.get(backend) ?? 'shared', tokens }]
  })
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
