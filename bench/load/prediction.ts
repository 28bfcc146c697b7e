import { model } from '../../test/support/fleet.ts'
import { Conversations, startMixedFleet } from '../../test/support/mixed-fleet.ts'
import { seededRandom } from '../../test/support/random.ts'
import type { BenchResult } from '../result.ts'

const requests = 6000
const clients = 8

interface Predicted {
  requests: number
  predicted: number
  actual: number
  difference: number
  larger: number
  exact: number
}

/**
 * How well cached tokens are predicted, by kind of engine: simulated engines whose caches are overrun all the time, eight
 * requests at a time, conversations that share beginnings. `npm run test:engines` does the same before engines not written here.
 */
export async function run(): Promise<BenchResult[]> {
  const fleet = await startMixedFleet()
  try {
    const views = await fleet.workers()
    const kindOf = (id: string): string => {
      const view = views.find((candidate) => candidate.id === id)
      return view?.events.state === 'absent' ? 'without events' : (view?.engine ?? 'unknown')
    }
    const random = seededRandom(1)
    const conversations = new Conversations(random)
    const byKind = new Map<string, Predicted>()
    let left = requests
    const client = async (): Promise<void> => {
      while (left-- > 0) {
        const [, prompt] = conversations.next()
        const body = { model, prompt, max_tokens: 1 + Math.floor(random() * 24) }
        const answer = await fleet.post('/v1/completions', body)
        const predicted = Number(answer.headers.get('x-warmroute-cached-tokens'))
        const { usage } = (await answer.json()) as {
          usage: { prompt_tokens_details: { cached_tokens: number } | null }
        }
        const actual = usage.prompt_tokens_details?.cached_tokens ?? 0
        add(byKind, kindOf(answer.headers.get('x-warmroute-worker') ?? ''), predicted, actual)
      }
    }
    await Promise.all(Array.from({ length: clients }, client))
    return [...byKind].sort().map(([kind, sum]) => resultOf(kind, sum))
  } finally {
    await fleet.stop()
  }
}

function add(byKind: Map<string, Predicted>, kind: string, predicted: number, actual: number): void {
  const sum = byKind.get(kind) ?? { requests: 0, predicted: 0, actual: 0, difference: 0, larger: 0, exact: 0 }
  byKind.set(kind, sum)
  sum.requests++
  sum.predicted += predicted
  sum.actual += actual
  sum.difference += Math.abs(predicted - actual)
  sum.larger += Math.max(predicted, actual)
  if (predicted === actual) sum.exact++
}

function resultOf(kind: string, { requests: count, predicted, actual, difference, larger, exact }: Predicted) {
  const agreement = larger === 0 ? 1 : 1 - difference / larger
  return {
    name: `agreement, ${kind}`,
    unit: '',
    value: agreement,
    samples: [agreement],
    notes: { requests: count, 'equal to the token': exact / count, predicted, actual },
  }
}
