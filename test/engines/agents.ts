import { text } from './texts.ts'

/** What one request of an agent says; `answered` gets what the engine replied. */
export interface AgentTurn {
  readonly title: string
  readonly messages: readonly Message[]
  readonly maxTokens: number
  readonly stream: boolean
  answered(content: string): void
}

interface Message {
  readonly role: string
  readonly content: string
}

interface Conversation {
  readonly name: string
  readonly messages: Message[]
  words: number
}

export interface AgentOptions {
  /** Agents that work at the same time, each one request after the other. */
  readonly agents: number
  /** Conversations that an agent goes back and forth between: what lies idle is what an engine evicts. */
  readonly conversations: number
  /** Words of a conversation after which a new one takes its place; a word is about one token. */
  readonly longest: number
  /** Uniform in [0, 1). */
  readonly random: () => number
}

const tenants = 3
const systemWords = 80
const mostTokens = 8
/** Share of turns that are a side question: the same beginning, another end, and no part of what follows. */
const sideQuestions = 0.15

/**
 * Agents at work: growing conversations under few shared system prompts, taken up again after a while, with side
 * questions that branch off. Sends `requests` turns and returns when all are answered.
 */
export async function agentsAtWork(
  requests: number,
  options: AgentOptions,
  send: (turn: AgentTurn) => Promise<void>,
): Promise<void> {
  const { agents, random } = options
  let left = requests
  let serial = 0
  const agent = async (name: string): Promise<void> => {
    const open: Conversation[] = []
    while (left-- > 0) {
      let at = Math.floor(random() * options.conversations)
      if (at >= open.length) at = open.push(newConversation(`${name}.${serial}`, serial++)) - 1
      const chosen = open[at]
      if (chosen === undefined) throw new RangeError(`conversation ${at}`)
      await send(nextTurn(chosen, 10_000 + serial++, random))
      if (chosen.words > options.longest) open.splice(at, 1)
    }
  }
  await Promise.all(Array.from({ length: agents }, (_, at) => agent(`agent ${at + 1}`)))
}

function newConversation(name: string, serial: number): Conversation {
  return {
    name,
    messages: [{ role: 'system', content: text(serial % tenants, systemWords) }],
    words: systemWords,
  }
}

function nextTurn(conversation: Conversation, seed: number, random: () => number): AgentTurn {
  const question = { role: 'user', content: text(seed, 15 + Math.floor(random() * 60)) }
  const isAside = random() < sideQuestions
  const turn = conversation.messages.filter(({ role }) => role === 'user').length + 1
  const messages = [...conversation.messages, question]
  return {
    title: `${conversation.name} turn ${turn}${isAside ? ', aside' : ''}`,
    messages,
    maxTokens: 1 + Math.floor(random() * mostTokens),
    stream: random() < 0.5,
    answered: (content) => {
      if (isAside) return
      conversation.messages.push(question, { role: 'assistant', content })
      conversation.words += question.content.split(' ').length + content.split(' ').length
    },
  }
}
