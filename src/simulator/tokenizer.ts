import type { MessagesRules } from '../tokenize/anthropic.ts'
import { words } from './words.ts'

/** What a simulated engine needs of a tokenizer; `src/tokenize` has the real one. */
export interface SimulatorTokenizer {
  /** Token ids run from 0 to this, exclusive. */
  readonly vocabularySize: number
  /** Takes a chat request's own fields. */
  chat(prompt: Readonly<Record<string, unknown>> & { readonly messages: unknown }): Promise<Uint32Array>
  text(text: string, addSpecialTokens: boolean): Promise<Uint32Array>
  /** How bodies of /v1/messages become chats for the model's template. */
  messagesRules(): MessagesRules
  detokenize(ids: readonly number[] | Uint32Array): Promise<string>
}

/** What an engine can say: ordinary tokens, and the text of each. */
export interface OutputVocabulary {
  readonly tokens: Uint32Array
  readonly texts: ReadonlyMap<number, string>
}

/**
 * The common words that are one token of this tokenizer with a space before them. Sent back as text in the next turn they
 * become the same tokens again, so that an engine's own answers are found in its cache.
 */
export async function outputVocabulary(tokenizer: SimulatorTokenizer): Promise<OutputVocabulary> {
  const texts = new Map<number, string>()
  for (const word of words) {
    const ids = await tokenizer.text(` ${word}`, false)
    const [id] = ids
    if (id === undefined || ids.length !== 1) continue
    if ((await tokenizer.detokenize([id])) === ` ${word}`) texts.set(id, ` ${word}`)
  }
  if (texts.size === 0) {
    const from = Math.min(1_000, tokenizer.vocabularySize >>> 1)
    for (let id = from; id < Math.min(tokenizer.vocabularySize, from + 256); id++) {
      texts.set(id, await tokenizer.detokenize([id]))
    }
  }
  return { tokens: Uint32Array.from(texts.keys()), texts }
}
