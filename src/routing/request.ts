import type { PolicyFacts, PolicyRequest } from './policy.ts'

/** The names of a prompt's blocks of one size. */
export interface KeysOfSize {
  readonly blockSize: number
  readonly keys: Uint32Array
}

const none = new Uint32Array(0)
const nothing: PolicyFacts = {
  model: '',
  adapter: null,
  promptTokens: 0,
  promptTokensEstimate: 0,
  session: null,
  user: null,
  keyId: '',
  priority: 0,
  stream: false,
  maxTokens: null,
  header: () => null,
}

/** One request as policies see it. Filled anew for each decision: no garbage on the hot path. */
export class RoutedRequest implements PolicyRequest {
  model = ''
  adapter: string | null = null
  promptTokens = 0
  promptTokensEstimate = 0
  session: string | null = null
  user: string | null = null
  keyId = ''
  priority = 0
  stream = false
  maxTokens: number | null = null
  #facts = nothing
  #keys: readonly KeysOfSize[] = []

  is(facts: PolicyFacts, keys: readonly KeysOfSize[]): this {
    this.model = facts.model
    this.adapter = facts.adapter
    this.promptTokens = facts.promptTokens
    this.promptTokensEstimate = facts.promptTokensEstimate
    this.session = facts.session
    this.user = facts.user
    this.keyId = facts.keyId
    this.priority = facts.priority
    this.stream = facts.stream
    this.maxTokens = facts.maxTokens
    this.#facts = facts
    this.#keys = keys
    return this
  }

  keys(blockSize: number): Uint32Array {
    for (const known of this.#keys) if (known.blockSize === blockSize) return known.keys
    return none
  }

  header(name: string): string | null {
    return this.#facts.header(name)
  }
}
