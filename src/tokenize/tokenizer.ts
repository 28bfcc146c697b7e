import { Tokenizer as NativeTokenizer } from 'tokenizers'
import { RouterError } from '../errors.ts'
import { ByteLevelBpe } from './byte-level-bpe.ts'
import type { MessagesRules } from './anthropic.ts'
import { renderChat, type ChatPrompt, type RenderedChat } from './chat.ts'
import { readModelFiles, unreadable, type CuttingRules, type ModelFiles, type TokenizerJson } from './model-files.ts'
import { messagesRulesOf } from './messages-rules.ts'
import { ChatTemplate } from './template.ts'

/** Turns prompts into the token ids that the engine will compute. Immutable; one a model. */
export interface Tokenizer {
  /** Token ids run from 0 to this, exclusive. */
  readonly vocabularySize: number
  readonly rules: CuttingRules
  /** The default chat template's text; null if the model has none. */
  readonly templateSource: string | null
  /** The engine renders this model's chats in OpenAI's harmony format, by code and not by the template. */
  readonly harmony: boolean
  /** How bodies of /v1/messages become chats for this template. */
  messagesRules(): MessagesRules
  /** @throws RouterError BODY_INVALID, TEMPLATE_REFUSED */
  renderChat(prompt: ChatPrompt): RenderedChat
  chat(prompt: ChatPrompt): Promise<Uint32Array>
  text(text: string, addSpecialTokens: boolean): Promise<Uint32Array>
  /** Ids of a text without any special tokens around it. */
  encode(text: string): Promise<Uint32Array>
  /** The ids that `addSpecialTokens` puts before and after a text. */
  readonly specialPrefix: Uint32Array
  readonly specialSuffix: Uint32Array
  detokenize(ids: readonly number[] | Uint32Array): Promise<string>
}

export interface TokenizerOptions {
  /** Directory with tokenizer.json and tokenizer_config.json. */
  readonly path: string
  /** File with a Jinja template that replaces the model's own. */
  readonly chatTemplatePath?: string
  /** Keyword arguments for every chat, as vLLM's --default-chat-template-kwargs. */
  readonly defaultTemplateArguments?: Readonly<Record<string, unknown>>
  /**
   * Tokenize long texts in the calling thread, for threads that do nothing else. Otherwise texts over `longTextLength` go to
   * the native library's own pool.
   */
  readonly dedicatedThread?: boolean
  /** Clock for templates that print the date. */
  readonly now?: () => Date
}

/** In UTF-16 units: about 5 ms of work. */
const longTextLength = 64 * 1024

/**
 * Loads a tokenizer: 0.1 to 1.5 s by the size of its vocabulary.
 *
 * @throws RouterError TOKENIZER_UNREADABLE naming the file and what to do
 */
export async function loadTokenizer(options: TokenizerOptions): Promise<Tokenizer> {
  const files = await readModelFiles(options.path, options.chatTemplatePath ?? null)
  let native: NativeTokenizer
  try {
    native = NativeTokenizer.fromString(files.tokenizerText)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw unreadable(
      `${options.path}/tokenizer.json`,
      `is refused by the tokenizer library (${reason})`,
      'Copy the file again from the model.',
      error,
    )
  }
  // A file may carry limits of its training; the engine sets its own for every call.
  native.disableTruncation()
  native.disablePadding()
  const special = await specialTokensAround(native)
  return new HuggingFaceTokenizer(native, files, special, options)
}

class HuggingFaceTokenizer implements Tokenizer {
  readonly vocabularySize: number
  readonly rules: CuttingRules
  readonly templateSource: string | null
  readonly harmony: boolean
  readonly specialPrefix: Uint32Array
  readonly specialSuffix: Uint32Array
  readonly #native: NativeTokenizer
  readonly #bpe: ByteLevelBpe | null
  readonly #longestHere: number
  readonly #template: ChatTemplate | null
  readonly #toolTemplate: ChatTemplate | null
  readonly #defaults: Readonly<Record<string, unknown>>
  #messagesRules: MessagesRules | null = null

  constructor(
    native: NativeTokenizer,
    files: ModelFiles,
    special: { prefix: Uint32Array; suffix: Uint32Array },
    options: TokenizerOptions,
  ) {
    const now = options.now ?? ((): Date => new Date())
    const compile = (name: string): ChatTemplate | null => {
      const source = files.templates.get(name)
      return source === undefined ? null : new ChatTemplate(source, files.specialTokens, now)
    }
    this.#native = native
    this.#bpe = ByteLevelBpe.from(files.tokenizer)
    this.#longestHere = options.dedicatedThread === true ? Infinity : longTextLength
    const { added_tokens, normalizer, pre_tokenizer } = files.tokenizer
    this.rules = { added_tokens, normalizer, pre_tokenizer }
    this.vocabularySize = Math.max(largestId(files.tokenizer, native) + 1, files.modelVocabularySize ?? 0)
    this.#template = compile('default')
    this.#toolTemplate = compile('tool_use')
    this.templateSource = this.#template?.source ?? null
    this.harmony = files.modelType === 'gpt_oss' || /<\|start\|>[^]*<\|channel\|>/.test(this.templateSource ?? '')
    this.#defaults = options.defaultTemplateArguments ?? {}
    this.specialPrefix = special.prefix
    this.specialSuffix = special.suffix
  }

  messagesRules(): MessagesRules {
    const templates = [this.#template, this.#toolTemplate].filter((template) => template !== null)
    this.#messagesRules ??= messagesRulesOf(templates, (prompt) => this.renderChat(prompt).text)
    return this.#messagesRules
  }

  renderChat(prompt: ChatPrompt): RenderedChat {
    const withTools = prompt.tools !== undefined && prompt.tools !== null
    const template = (withTools ? this.#toolTemplate : null) ?? this.#template
    if (template === null) {
      throw new RouterError('TEMPLATE_REFUSED', 'This model has no chat template; send a completion request instead.')
    }
    return renderChat(template, prompt, this.#defaults)
  }

  chat(prompt: ChatPrompt): Promise<Uint32Array> {
    const rendered = this.renderChat(prompt)
    return this.text(rendered.text, rendered.addSpecialTokens)
  }

  async text(text: string, addSpecialTokens: boolean): Promise<Uint32Array> {
    const ids = await this.encode(text)
    return addSpecialTokens ? around(this.specialPrefix, ids, this.specialSuffix) : ids
  }

  async encode(text: string): Promise<Uint32Array> {
    if (text === '') return new Uint32Array(0)
    const ids = text.length <= this.#longestHere ? (this.#bpe?.encode(text) ?? null) : null
    if (ids !== null) return ids
    const encoding = await this.#native.encode(text, null, { addSpecialTokens: false })
    return new Uint32Array(encoding.getIds())
  }

  detokenize(ids: readonly number[] | Uint32Array): Promise<string> {
    return this.#native.decode(Array.from(ids), false)
  }
}

/** Puts ids before and after others; the middle itself where there are none. */
export function around(prefix: Uint32Array, ids: Uint32Array, suffix: Uint32Array): Uint32Array {
  if (prefix.length + suffix.length === 0) return ids
  const result = new Uint32Array(prefix.length + ids.length + suffix.length)
  result.set(prefix, 0)
  result.set(ids, prefix.length)
  result.set(suffix, prefix.length + ids.length)
  return result
}

/** What the post-processor adds around a text, found by encoding one with and without. */
async function specialTokensAround(native: NativeTokenizer): Promise<{ prefix: Uint32Array; suffix: Uint32Array }> {
  const probe = 'a'
  const bare = (await native.encode(probe, null, { addSpecialTokens: false })).getIds()
  const full = (await native.encode(probe, null, { addSpecialTokens: true })).getIds()
  for (let start = 0; start + bare.length <= full.length; start += 1) {
    if (bare.every((id, index) => full[start + index] === id)) {
      return {
        prefix: Uint32Array.from(full.slice(0, start)),
        suffix: Uint32Array.from(full.slice(start + bare.length)),
      }
    }
  }
  throw new RouterError(
    'TOKENIZER_UNREADABLE',
    'The tokenizer’s post-processor changes the tokens of a text; only processors that add special tokens around it are supported.',
  )
}

function largestId(files: TokenizerJson, native: NativeTokenizer): number {
  let largest = native.getVocabSize(false) - 1
  for (const token of files.added_tokens) largest = Math.max(largest, token.id)
  const vocabulary = files.model.vocab
  if (typeof vocabulary === 'object' && vocabulary !== null && !Array.isArray(vocabulary)) {
    for (const id of Object.values(vocabulary as Record<string, number>)) largest = Math.max(largest, id)
  }
  return largest
}
