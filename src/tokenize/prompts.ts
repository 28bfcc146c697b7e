import { RouterError } from '../errors.ts'
import { TokenCache, type CachedTokens } from './cache.ts'
import { Cuts } from './cuts.ts'
import { chatOfMessages } from './anthropic.ts'
import type { ChatPrompt } from './chat.ts'
import { checkTokenIds, type PromptSource } from './prompt-source.ts'
import { around, loadTokenizer, type Tokenizer } from './tokenizer.ts'
import type { TokenizerSource } from './thread-messages.ts'

export interface TokenizedPrompts {
  /** One for each prompt of the request. Read-only: they may share memory with the cache. */
  readonly prompts: readonly Uint32Array[]
  /** Leading tokens, summed over the prompts, that equal those of an earlier request. */
  readonly cachedTokens: number
  /** Above 0 the prompt is known up to its first media only, and this is a guess at the tokens after. */
  readonly unknownTokens: number
}

/** The tokenizers of one thread, by pool, with one token cache each. */
export class PromptTokenizers {
  readonly #cacheBytes: number
  readonly #dedicatedThread: boolean
  readonly #byName = new Map<string, { readonly tokenizer: Tokenizer; cache: TokenCache }>()

  /**
   * @param cacheBytes budget of all token caches on this thread together
   * @param dedicatedThread whether the thread does nothing else, so that long texts may hold it
   */
  constructor(cacheBytes: number, dedicatedThread: boolean) {
    this.#cacheBytes = cacheBytes
    this.#dedicatedThread = dedicatedThread
  }

  /** @throws RouterError TOKENIZER_UNREADABLE */
  async add(name: string, source: TokenizerSource): Promise<void> {
    const tokenizer = await loadTokenizer({
      path: source.path,
      dedicatedThread: this.#dedicatedThread,
      ...(source.chatTemplate === undefined ? {} : { chatTemplatePath: source.chatTemplate }),
    })
    this.#byName.set(name, { tokenizer, cache: this.#emptyCache(tokenizer, 0) })
    this.#divide()
  }

  remove(name: string): void {
    if (this.#byName.delete(name)) this.#divide()
  }

  /** Each cache gets an equal share; the budget is divided anew when a pool is added or removed, which is rare. */
  #divide(): void {
    for (const entry of this.#byName.values()) {
      entry.cache = this.#emptyCache(entry.tokenizer, Math.floor(this.#cacheBytes / this.#byName.size))
    }
  }

  get(name: string): Tokenizer | null {
    return this.#byName.get(name)?.tokenizer ?? null
  }

  get cacheBytes(): number {
    let bytes = 0
    for (const { cache } of this.#byName.values()) bytes += cache.bytes
    return bytes
  }

  #emptyCache(tokenizer: Tokenizer, budgetBytes: number): TokenCache {
    const cuts = new Cuts(tokenizer.rules, usualText(tokenizer))
    // A thread of its own gives the tokens to another one.
    return new TokenCache(budgetBytes, cuts, (text) => tokenizer.encode(text), this.#dedicatedThread)
  }

  /**
   * At once where all of the prompt is known.
   * @throws RouterError BODY_INVALID, TEMPLATE_REFUSED, TOKEN_ID_INVALID, TOKENIZER_FAILED
   */
  tokens(name: string, source: PromptSource): TokenizedPrompts | Promise<TokenizedPrompts> {
    const entry = this.#byName.get(name)
    if (source.kind === 'ids') {
      if (entry !== undefined) checkTokenIds(source.prompts, entry.tokenizer.vocabularySize, source.param)
      return { prompts: source.prompts, cachedTokens: 0, unknownTokens: 0 }
    }
    if (entry === undefined) throw new RouterError('TOKENIZER_FAILED', `No tokenizer is loaded for "${name}".`)
    const { tokenizer, cache } = entry
    switch (source.kind) {
      case 'none':
        return noPrompt
      case 'chat':
        return chatTokens(source.chat, tokenizer, cache)
      case 'messages': {
        const chat = tokenizer.harmony ? null : chatOfMessages(source.body, tokenizer.messagesRules())
        return chat === null ? noPrompt : chatTokens(chat, tokenizer, cache)
      }
      case 'responses':
        return tokenizer.harmony ? noPrompt : chatTokens(source.chat, tokenizer, cache)
      case 'texts':
        return source.texts.length === 1
          ? encoded([source.texts[0] as string], source.addSpecialTokens, 0, tokenizer, cache)
          : textsTokens(source.texts, source.addSpecialTokens, tokenizer, cache)
      default:
        return source satisfies never
    }
  }
}

const noPrompt: TokenizedPrompts = { prompts: [], cachedTokens: 0, unknownTokens: 0 }

function chatTokens(
  chat: ChatPrompt,
  tokenizer: Tokenizer,
  cache: TokenCache,
): TokenizedPrompts | Promise<TokenizedPrompts> {
  const { pieces, addSpecialTokens, unknownTokens } = tokenizer.renderChat(chat)
  return encoded(pieces, addSpecialTokens, unknownTokens, tokenizer, cache)
}

async function textsTokens(
  texts: readonly string[],
  addSpecialTokens: boolean,
  tokenizer: Tokenizer,
  cache: TokenCache,
): Promise<TokenizedPrompts> {
  const prompts: Uint32Array[] = []
  let cachedTokens = 0
  for (const text of texts) {
    const one = await encoded([text], addSpecialTokens, 0, tokenizer, cache)
    prompts.push(...one.prompts)
    cachedTokens += one.cachedTokens
  }
  return { prompts, cachedTokens, unknownTokens: 0 }
}

/** One prompt, in pieces to be joined. */
function encoded(
  pieces: readonly string[],
  addSpecialTokens: boolean,
  unknownTokens: number,
  tokenizer: Tokenizer,
  cache: TokenCache,
): TokenizedPrompts | Promise<TokenizedPrompts> {
  const whole = ({ tokens, cachedTokens }: CachedTokens): TokenizedPrompts => ({
    prompts: [addSpecialTokens ? around(tokenizer.specialPrefix, tokens, tokenizer.specialSuffix) : tokens],
    cachedTokens,
    unknownTokens,
  })
  const known = cache.encode(pieces)
  return known instanceof Promise ? known.then(whole) : whole(known)
}

/** A chat as most are: the added tokens in it are those that a template puts between messages. */
function usualText(tokenizer: Tokenizer): string {
  const turns = ['user', 'assistant', 'user'].map((role) => ({ role, content: role }))
  try {
    return tokenizer.renderChat({ messages: turns }).text
  } catch {
    return tokenizer.templateSource ?? ''
  }
}
