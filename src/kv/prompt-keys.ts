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
  readonly #scopes = new Map<string, KeyScope>()

  constructor(maker: KeyMaker) {
    this.#maker = maker
  }

  /** Two words a block, low word first. */
  of(tokens: Uint32Array, { model, adapter, blockSize, cacheSalt }: PromptScope): Uint32Array {
    const name = `${blockSize}\u0000${adapter ?? ''}\u0000${model}`
    let scope = this.#scopes.get(name)
    if (scope === undefined) {
      scope = this.#maker.scope({ model, blockSize, adapter })
      this.#scopes.set(name, scope)
    }
    const extras: BlockExtras | undefined = cacheSalt === null ? undefined : [[`salt:${cacheSalt}`]]
    return blockKeys(tokens, scope, extras)
  }
}
