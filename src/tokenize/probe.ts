import type { ChatPrompt } from './chat.ts'
import type { Tokenizer } from './tokenizer.ts'

/** A request for a worker's /tokenize, without the model's name. */
export type ProbePrompt =
  | ({ readonly kind: 'chat' } & ChatPrompt)
  | { readonly kind: 'text'; readonly prompt: string; readonly add_special_tokens: boolean }

/** Asks a worker's POST /tokenize: its token ids, or why there are none. The caller adds the model's name. */
export type AskTokenize = (
  body: Readonly<Record<string, unknown>>,
) => Promise<readonly number[] | 'unsupported' | 'unreachable'>

/** Decision 11: `unverified` is no reproach; only a difference degrades the worker. */
export type ProbeResult =
  | { readonly kind: 'equal'; readonly compared: number }
  | {
      readonly kind: 'different'
      /** Index in `probePrompts`. */
      readonly probe: number
      /** Index of the first token that differs; the shorter length if one is the other's beginning. */
      readonly at: number
      readonly ours: number | null
      readonly theirs: number | null
    }
  | { readonly kind: 'unverified'; readonly reason: 'unsupported' | 'unreachable' }

const weatherTool = {
  type: 'function',
  function: {
    name: 'weather',
    description: 'Tells the weather in a “city”',
    parameters: {
      type: 'object',
      properties: { city: { type: 'string' }, days: { type: 'integer', default: 1 } },
      required: ['city'],
    },
  },
}

/** Prompts in which tokenizers and templates that differ in any known way give different ids. */
export const probePrompts: readonly ProbePrompt[] = [
  { kind: 'text', prompt: "Hello  world! It's 12345,\n\n\tnaïve 你好 👩‍🔬 é", add_special_tokens: true },
  { kind: 'text', prompt: 'def f(x):\n    return {"a": x ** 2}  # done\n', add_special_tokens: false },
  { kind: 'chat', messages: [{ role: 'user', content: 'Hi' }] },
  {
    kind: 'chat',
    messages: [
      { role: 'system', content: 'Be brief. ' },
      { role: 'user', content: ' Two  spaces\n' },
      { role: 'assistant', content: 'Yes.' },
      { role: 'user', content: 'And now?' },
    ],
  },
  {
    kind: 'chat',
    messages: [
      { role: 'user', content: 'Weather in Zürich?' },
      {
        role: 'assistant',
        content: null,
        tool_calls: [
          { id: 'call12345', type: 'function', function: { name: 'weather', arguments: '{"city": "Zürich"}' } },
        ],
      },
      { role: 'tool', tool_call_id: 'call12345', content: 'sunny' },
    ],
    tools: [weatherTool],
  },
]

/**
 * Compares our ids with a worker's. Chats that our template refuses are left out: the worker would refuse them, too.
 */
export async function probeTokenizer(tokenizer: Tokenizer, ask: AskTokenize): Promise<ProbeResult> {
  let compared = 0
  for (const [probe, prompt] of probePrompts.entries()) {
    const ours = await ourIds(tokenizer, prompt)
    if (ours === null) continue
    const theirs = await ask(bodyOf(prompt))
    if (theirs === 'unsupported' || theirs === 'unreachable') return { kind: 'unverified', reason: theirs }
    const at = firstDifference(ours, theirs)
    if (at !== null) return { kind: 'different', probe, at, ours: ours[at] ?? null, theirs: theirs[at] ?? null }
    compared += 1
  }
  return { kind: 'equal', compared }
}

function bodyOf(prompt: ProbePrompt): Record<string, unknown> {
  const body: Record<string, unknown> = { ...prompt }
  delete body['kind']
  return body
}

async function ourIds(tokenizer: Tokenizer, prompt: ProbePrompt): Promise<Uint32Array | null> {
  if (prompt.kind === 'text') return tokenizer.text(prompt.prompt, prompt.add_special_tokens)
  try {
    return await tokenizer.chat(prompt)
  } catch {
    return null
  }
}

function firstDifference(ours: Uint32Array, theirs: readonly number[]): number | null {
  const length = Math.max(ours.length, theirs.length)
  for (let at = 0; at < length; at += 1) {
    if (ours[at] !== theirs[at]) return at
  }
  return null
}
