import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { RouterError } from '../errors.ts'

/** The parts of Hugging Face's tokenizer.json that are looked at here; the native tokenizer reads the rest. */
export interface TokenizerJson {
  readonly added_tokens: readonly AddedToken[]
  readonly normalizer: TypedStep | null
  readonly pre_tokenizer: TypedStep | null
  readonly model: {
    readonly type?: string
    readonly vocab?: unknown
    readonly merges?: unknown
    readonly [key: string]: unknown
  }
}

/** The rules by which a text is cut before the model sees it; the vocabulary and the merges are much larger and not kept. */
export type CuttingRules = Pick<TokenizerJson, 'added_tokens' | 'normalizer' | 'pre_tokenizer'>

export interface AddedToken {
  readonly id: number
  readonly content: string
  readonly single_word: boolean
  readonly lstrip: boolean
  readonly rstrip: boolean
  readonly normalized: boolean
  readonly special: boolean
}

export interface TypedStep {
  readonly type: string
  readonly [key: string]: unknown
}

/** What a tokenizer's directory says, as far as the router needs it. */
export interface ModelFiles {
  readonly tokenizerText: string
  readonly tokenizer: TokenizerJson
  /** The chat templates by name; `default` is the usual one. Empty if the model has none. */
  readonly templates: ReadonlyMap<string, string>
  /** bos_token, eos_token, …: the special tokens that a template may print. */
  readonly specialTokens: Readonly<Record<string, unknown>>
  /** The model's own vocabulary size, which may be padded beyond the tokenizer's; null if config.json is not there. */
  readonly modelVocabularySize: number | null
  /** `model_type` of config.json; null if there is none. */
  readonly modelType: string | null
}

/**
 * Reads tokenizer.json, tokenizer_config.json and, where present, chat_template.jinja, chat_template.json,
 * special_tokens_map.json and config.json of a model directory.
 *
 * @param templatePath a file with a chat template that replaces the model's own
 * @throws RouterError TOKENIZER_UNREADABLE naming the file and what to do
 */
export async function readModelFiles(path: string, templatePath: string | null): Promise<ModelFiles> {
  const tokenizerText = await readText(join(path, 'tokenizer.json'))
  if (tokenizerText === null) {
    throw unreadable(
      join(path, 'tokenizer.json'),
      'does not exist',
      'Point "tokenizer" at a directory with the model’s tokenizer.json and tokenizer_config.json.',
    )
  }
  const tokenizer = parseObject(tokenizerText, join(path, 'tokenizer.json')) as unknown as TokenizerJson
  if (!Array.isArray(tokenizer.added_tokens) || typeof tokenizer.model !== 'object') {
    throw unreadable(
      join(path, 'tokenizer.json'),
      'is not a tokenizer of the Hugging Face "fast" form',
      'Save it again with transformers.',
    )
  }
  const config = await readObject(join(path, 'tokenizer_config.json'))
  const specialTokensMap = (await readObject(join(path, 'special_tokens_map.json'))) ?? {}
  const modelConfig = await readObject(join(path, 'config.json'))
  return {
    tokenizerText,
    tokenizer,
    templates: await readTemplates(path, templatePath, config ?? {}),
    specialTokens: specialTokensOf({ ...specialTokensMap, ...config }),
    modelVocabularySize: vocabularySizeOf(modelConfig),
    modelType: typeof modelConfig?.['model_type'] === 'string' ? modelConfig['model_type'] : null,
  }
}

async function readTemplates(
  path: string,
  templatePath: string | null,
  config: Readonly<Record<string, unknown>>,
): Promise<Map<string, string>> {
  if (templatePath !== null) {
    const text = await readText(templatePath)
    if (text === null)
      throw unreadable(templatePath, 'does not exist', 'Point "chatTemplate" at a file with a Jinja template.')
    return new Map([['default', text]])
  }
  const jinja = await readText(join(path, 'chat_template.jinja'))
  if (jinja !== null) return new Map([['default', jinja]])
  const json = await readObject(join(path, 'chat_template.json'))
  return templatesOf(json?.['chat_template'] ?? config['chat_template'])
}

/** One template, or a list of named ones. */
function templatesOf(value: unknown): Map<string, string> {
  if (typeof value === 'string') return new Map([['default', value]])
  const templates = new Map<string, string>()
  if (Array.isArray(value)) {
    for (const entry of value as { name?: unknown; template?: unknown }[]) {
      if (typeof entry.name === 'string' && typeof entry.template === 'string')
        templates.set(entry.name, entry.template)
    }
  }
  return templates
}

const specialTokenNames = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token']

function specialTokensOf(config: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const tokens: Record<string, unknown> = {}
  for (const name of specialTokenNames) {
    const text = tokenText(config[name])
    if (text !== null) tokens[name] = text
  }
  const additional = config['additional_special_tokens']
  if (Array.isArray(additional))
    tokens['additional_special_tokens'] = additional.map(tokenText).filter((text) => text !== null)
  return tokens
}

function tokenText(value: unknown): string | null {
  if (typeof value === 'string') return value
  if (typeof value !== 'object' || value === null) return null
  const content = (value as { content?: unknown }).content
  return typeof content === 'string' ? content : null
}

function vocabularySizeOf(config: Readonly<Record<string, unknown>> | null): number | null {
  const text = config?.['text_config']
  const nested = typeof text === 'object' && text !== null ? (text as Record<string, unknown>)['vocab_size'] : undefined
  const size = config?.['vocab_size'] ?? nested
  return typeof size === 'number' ? size : null
}

async function readObject(path: string): Promise<Record<string, unknown> | null> {
  const text = await readText(path)
  return text === null ? null : parseObject(text, path)
}

function parseObject(text: string, path: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  } catch (error) {
    throw unreadable(path, 'is not valid JSON', 'Copy the file again from the model.', error)
  }
  throw unreadable(path, 'is not a JSON object', 'Copy the file again from the model.')
}

async function readText(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')) return null
    throw unreadable(
      path,
      `cannot be read (${error instanceof Error ? error.message : String(error)})`,
      'Check its permissions.',
      error,
    )
  }
}

export function unreadable(path: string, what: string, remedy: string, cause?: unknown): RouterError {
  return new RouterError('TOKENIZER_UNREADABLE', `${path} ${what}. ${remedy}`, { cause })
}
