import { createHash } from 'node:crypto'
import { randomWords } from '../../support/random.ts'

/** One event of a log that both programs are shown. */
export type LogStep =
  | {
      readonly kind: 'send'
      readonly name: string
      readonly prompt: string
      readonly headers?: Readonly<Record<string, string>>
    }
  | { readonly kind: 'finish'; readonly name: string }
  /** The interval after which the tree is cut down has passed. */
  | { readonly kind: 'evict' }

export interface LogShape {
  readonly seed: number
  readonly requests: number
  /** Requests in flight about which the log keeps. */
  readonly inFlight: number
  /** Share of requests that begin as one before them. */
  readonly reuse: number
  /** An `evict` after so many requests; 0: none. */
  readonly evictEvery: number
  /** Routing keys of which each request has one. */
  readonly routingKeys?: number
}

export const routingKeyHeader = 'x-smg-routing-key'

const letters = Array.from('abcdefghij klmnop. äßé 日本語 🙂')

/** Prompts that share prefixes, go on from others or are new, sent and answered in random order. */
export function requestLog({ seed, requests, inFlight, reuse, evictEvery, routingKeys }: LogShape): LogStep[] {
  const next = randomWords(seed)
  const below = (limit: number): number => next() % limit
  const text = (length: number): string => Array.from({ length }, () => letters[below(letters.length)]).join('')
  const steps: LogStep[] = []
  const prompts: string[] = []
  const open: string[] = []
  for (let request = 0; request < requests; request++) {
    const before = Array.from(prompts[below(prompts.length || 1)] ?? '')
    const kept = next() / 2 ** 32 < reuse ? before.slice(0, Math.ceil((before.length * (1 + below(4))) / 4)) : []
    const prompt = kept.join('') + text(1 + below(40))
    // A conversation that has grown too long ends, so that the log stays readable.
    prompts.push(Array.from(prompt).length > 160 ? Array.from(prompt).slice(0, 40).join('') : prompt)
    const headers = routingKeys === undefined ? {} : { headers: { [routingKeyHeader]: `key ${below(routingKeys)}` } }
    steps.push({ kind: 'send', name: `r${request}`, prompt, ...headers })
    open.push(`r${request}`)
    while (open.length > 0 && below(2 * inFlight + 1) < open.length) {
      const [name = ''] = open.splice(below(open.length), 1)
      steps.push({ kind: 'finish', name })
    }
    if (evictEvery > 0 && request % evictEvery === evictEvery - 1) steps.push({ kind: 'evict' })
  }
  return [...steps, ...open.map((name) => ({ kind: 'finish', name }) as const)]
}

/** By which a recorded log is known again. */
export function logDigest(steps: readonly LogStep[]): string {
  return createHash('sha256').update(JSON.stringify(steps)).digest('hex').slice(0, 16)
}
