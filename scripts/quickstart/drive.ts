import { Agent, request, type IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { messagesOf, type ChatMessage, type Conversation } from '../../src/simulator/workload.ts'

/** One streamed answer as its client saw it. */
export interface Sample {
  readonly worker: string
  /** From sending the request to the first byte of the answer's body. */
  readonly ttftMs: number
  readonly promptTokens: number
  readonly cachedTokens: number
}

export interface DriveOptions {
  /** The router's public URL. */
  readonly url: string
  readonly model: string
  readonly conversations: readonly Conversation<string>[]
  readonly onSample?: (done: number) => void
  readonly signal: AbortSignal
}

/** No answer of a demonstration takes near as long. */
const answerTimeoutMs = 60_000

/** Plays all conversations at the same time, each as a person would: ask, read to the end, think, ask on. */
export async function drive({ url, model, conversations, onSample, signal }: DriveOptions): Promise<Sample[]> {
  const samples: Sample[] = []
  const failed = new AbortController()
  const stop = AbortSignal.any([signal, failed.signal])
  const agent = new Agent({ keepAlive: true })
  const converse = async (conversation: Conversation<string>): Promise<void> => {
    const answers: string[] = []
    await sleep(conversation.startMs, undefined, { signal: stop })
    for (const [turn, { outputTokens, thinkMs }] of conversation.turns.entries()) {
      await sleep(thinkMs, undefined, { signal: stop })
      const messages = messagesOf(conversation, turn, answers)
      const { text, ...sample } = await ask({ url, model, messages, outputTokens, agent, signal: stop })
      answers.push(text)
      samples.push(sample)
      onSample?.(samples.length)
    }
  }
  try {
    await Promise.all(conversations.map(converse))
  } finally {
    failed.abort()
    agent.destroy()
  }
  return samples
}

interface Question {
  readonly url: string
  readonly model: string
  readonly messages: readonly ChatMessage[]
  readonly outputTokens: number
  readonly agent: Agent
  readonly signal: AbortSignal
}

async function ask({
  url,
  model,
  messages,
  outputTokens,
  agent,
  signal,
}: Question): Promise<Sample & { text: string }> {
  const stream = { stream: true, stream_options: { include_usage: true } }
  const body = JSON.stringify({ model, messages, max_tokens: outputTokens, ignore_eos: true, ...stream })
  const sentMs = performance.now()
  const answer = await post(
    `${url}/v1/chat/completions`,
    body,
    agent,
    AbortSignal.any([signal, AbortSignal.timeout(answerTimeoutMs)]),
  )
  let ttftMs = 0
  let raw = ''
  answer.setEncoding('utf8')
  for await (const part of answer) {
    if (ttftMs === 0) ttftMs = performance.now() - sentMs
    raw += String(part)
  }
  if (answer.statusCode !== 200) throw new Error(`The router answered ${answer.statusCode ?? 'nothing'}: ${raw}`)
  return { ttftMs, worker: String(answer.headers['x-warmroute-worker']), ...contentOf(raw) }
}

function post(url: string, body: string, agent: Agent, signal: AbortSignal): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }
    request(url, { method: 'POST', agent, signal, headers }, resolve).on('error', reject).end(body)
  })
}

interface Chunk {
  readonly error?: { readonly message: string }
  readonly choices?: readonly { readonly delta?: { readonly content?: string } }[]
  readonly usage?: {
    readonly prompt_tokens: number
    readonly prompt_tokens_details?: { readonly cached_tokens: number }
  }
}

/** Text and usage of a finished stream. Throws where it tells of an error or has no usage. */
function contentOf(stream: string): { text: string; promptTokens: number; cachedTokens: number } {
  let text = ''
  let usage: Chunk['usage']
  for (const line of stream.split('\n')) {
    if (!line.startsWith('data: ') || line === 'data: [DONE]') continue
    const chunk = JSON.parse(line.slice('data: '.length)) as Chunk
    if (chunk.error !== undefined) throw new Error(`An answer broke off: ${chunk.error.message}`)
    text += chunk.choices?.[0]?.delta?.content ?? ''
    usage = chunk.usage ?? usage
  }
  if (usage === undefined) throw new Error('An answer ended without its usage')
  return { text, promptTokens: usage.prompt_tokens, cachedTokens: usage.prompt_tokens_details?.cached_tokens ?? 0 }
}
