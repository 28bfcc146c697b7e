import { chatWorkloadSizes, type ChatWorkloadOptions, type Conversation } from '../../simulator/workload.ts'
import { RunBuilder, type Trace, type TraceRequest, type TraceSession } from './trace.ts'

/** Prompts share what their words would share: conversations a system prompt, and turns all that was said before them. */
export function chatTrace(options: Partial<ChatWorkloadOptions>, blockTokens = 16): Trace {
  const conversations = chatWorkloadSizes(options)
  const systems = new Map(conversations.map(({ systemPrompt, system }) => [systemPrompt, system]))
  // Ids of blocks that only system prompts fill come first, then those of each conversation.
  const systemIds = new Map<number, number>()
  let nextId = 0
  for (const [systemPrompt, tokens] of systems) {
    systemIds.set(systemPrompt, nextId)
    nextId += Math.floor(tokens / blockTokens)
  }
  const sessions = conversations.map((conversation): TraceSession => {
    const { id, startMs, systemPrompt } = conversation
    const requests = requestsOf(conversation, systemIds.get(systemPrompt) ?? 0, nextId, blockTokens)
    const last = requests.at(-1)
    nextId += Math.ceil((last?.promptTokens ?? 0) / blockTokens)
    return { id, startMs, requests, commonBlocks: 0 }
  })
  return { name: 'chat', format: 'chat', blockTokens, sessions }
}

function requestsOf(
  { startMs, system, turns }: Conversation<number>,
  systemId: number,
  ownId: number,
  blockTokens: number,
): TraceRequest[] {
  const common = Math.floor(system / blockTokens)
  let promptTokens = system
  return turns.map(({ user, outputTokens, thinkMs }) => {
    promptTokens += user
    const blocks = new RunBuilder()
    blocks.add(systemId, common)
    blocks.add(ownId, Math.ceil(promptTokens / blockTokens) - common)
    const request = { thinkMs, recordedMs: startMs, promptTokens, outputTokens, blocks: blocks.done() }
    promptTokens += outputTokens
    return request
  })
}
