import { oraclePolicy } from '../../src/replay/replay.ts'
import type { ProfileChoice } from '../../src/routing/catalogue.ts'

export interface ComparedPolicy {
  readonly name: string
  readonly policy: string | ProfileChoice
}

/** The default, which all others are compared with. */
export const own: ComparedPolicy = { name: 'kv-aware', policy: 'kv-aware' }

/** Sees the engines' true caches and queues. */
export const oracle: ComparedPolicy = { name: 'oracle (greedy)', policy: oraclePolicy }

/** What the default is compared with. Those that go by another router's name belong here once they are proven equal to it. */
export const others: readonly ComparedPolicy[] = [
  { name: 'round-robin', policy: 'round-robin' },
  { name: 'least-loaded', policy: 'least-loaded' },
]
