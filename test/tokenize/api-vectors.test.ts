import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { RouterError } from '../../src/errors.ts'
import { scanBody } from '../../src/tokenize/body.ts'
import { promptSource } from '../../src/tokenize/prompt-source.ts'
import { PromptTokenizers } from '../../src/tokenize/prompts.ts'
import type { PromptKind } from '../../src/tokenize/request.ts'
import { tokenizerPaths } from './tokenizers.ts'

interface ApiVector {
  readonly tokenizer: string
  readonly path: string
  readonly name: string
  /** The request's bytes: parsed here, 2.0 would become 2. */
  readonly body: string
  readonly status: number
  readonly token_ids?: readonly number[]
}

const fixtures = new URL('../fixtures/vllm/', import.meta.url)
const vectors = readFileSync(new URL('api_vectors.jsonl', fixtures), 'utf8')
  .split('\n')
  .filter(Boolean)
  .map((line) => JSON.parse(line) as ApiVector)

const kinds: Readonly<Record<string, PromptKind>> = {
  '/v1/messages': 'messages',
  '/v1/responses': 'responses',
  '/v1/chat/completions': 'chat',
}

const templateOf = (name: string): { chatTemplate: string } => ({
  chatTemplate: new URL(`${name}_chat_template.jinja`, fixtures).pathname,
})
const sources = {
  qwen3: { path: tokenizerPaths.qwen3 },
  listed: { path: tokenizerPaths.qwen3, ...templateOf('listed') },
  llama31: { path: tokenizerPaths.llama31, ...templateOf('llama31') },
}

const tokenizers = new PromptTokenizers(0, false)
for (const [name, source] of Object.entries(sources)) await tokenizers.add(name, source)

/** Null where the body has no prompt here, or is refused. */
async function tokensOf({ tokenizer, path, body }: ApiVector): Promise<readonly number[] | null> {
  const kind = kinds[path]
  assert.ok(kind !== undefined)
  try {
    const { prompts } = await tokenizers.tokens(tokenizer, promptSource(scanBody(Buffer.from(body)).value, kind))
    return prompts[0] === undefined ? null : [...prompts[0]]
  } catch (error) {
    assert.ok(error instanceof RouterError)
    assert.equal(error.status, 400)
    return null
  }
}

for (const name of Object.keys(sources)) {
  for (const path of Object.keys(kinds)) {
    test(`${path} with ${name}: bodies become the ids that vLLM 0.32 computes`, async (context) => {
      for (const vector of vectors.filter((one) => one.tokenizer === name && one.path === path)) {
        await context.test(vector.name, async () => {
          const tokens = await tokensOf(vector)
          if (vector.status === 200) assert.deepEqual(tokens, vector.token_ids)
        })
      }
    })
  }
}
