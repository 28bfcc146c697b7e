import { blockKeys, type BlockExtras, type KeyMaker, type KeyScope } from './keys.ts'

/** What a prompt's keys depend on besides its tokens. */
export interface PromptScope {
  readonly model: string
  readonly adapter: string | null
  readonly blockSize: number
  readonly cacheSalt: string | null
}

/** Block keys of prompts; the roots of their scopes are made once. */
export class PromptKeys {
  readonly #maker: KeyMaker
  /** By model and adapter, those of their block sizes. */
  readonly #scopes = new Map<string, Map<string | null, KeyScope[]>>()

  constructor(maker: KeyMaker) {
    this.#maker = maker
  }

  /** Two words a block, low word first. */
  of(tokens: Uint32Array, { model, adapter, blockSize, cacheSalt }: PromptScope): Uint32Array {
    const scope = this.#scope(model, adapter, blockSize)
    const extras: BlockExtras | undefined = cacheSalt === null ? undefined : [[`salt:${cacheSalt}`]]
    return blockKeys(tokens, scope, extras)
  }

  #scope(model: string, adapter: string | null, blockSize: number): KeyScope {
    let byAdapter = this.#scopes.get(model)
    if (byAdapter === undefined) this.#scopes.set(model, (byAdapter = new Map<string | null, KeyScope[]>()))
    let scopes = byAdapter.get(adapter)
    if (scopes === undefined) byAdapter.set(adapter, (scopes = []))
    for (const scope of scopes) if (scope.blockSize === blockSize) return scope
    const scope = this.#maker.scope({ model, blockSize, adapter })
    scopes.push(scope)
    return scope
  }
}
