import { mix32, seededRandom, type Random } from './random.ts'
import { words } from './words.ts'

/** A closed-loop chat load: people who share system prompts, ask, read the answer, think, and ask on. */
export interface ChatWorkloadOptions {
  readonly seed: number
  readonly conversations: number
  /** How many system prompts there are; each conversation uses one of them. */
  readonly systemPrompts: number
  readonly turns: number
  readonly systemPromptWords: number
  /** Least and most words of a question. */
  readonly userWords: readonly [number, number]
  /** Least and most tokens of an answer. */
  readonly outputTokens: readonly [number, number]
  /** Mean pause between an answer and the next question. */
  readonly thinkMs: number
  /** Mean time between the starts of two conversations. */
  readonly arrivalGapMs: number
}

export const chatWorkloadDefaults: ChatWorkloadOptions = {
  seed: 0,
  conversations: 32,
  systemPrompts: 4,
  turns: 5,
  systemPromptWords: 600,
  userWords: [20, 120],
  outputTokens: [20, 100],
  thinkMs: 400,
  arrivalGapMs: 60,
}

export interface Turn<Text> {
  readonly user: Text
  readonly outputTokens: number
  /** From the answer before it (or the conversation's start) to this question. */
  readonly thinkMs: number
}

/** `Text` is a string for a load over HTTP, a number of words for one in virtual time. */
export interface Conversation<Text> {
  readonly id: string
  readonly startMs: number
  readonly systemPrompt: number
  readonly system: Text
  readonly turns: readonly Turn<Text>[]
}

/** Conversations as texts. Equal options give equal conversations; more of them leave the first ones as they were. */
export function chatWorkload(options: Partial<ChatWorkloadOptions> = {}): Conversation<string>[] {
  return conversationsOf({ ...chatWorkloadDefaults, ...options }, (random, count) => {
    const text = Array.from({ length: count }, () => words[random.below(words.length)]).join(' ')
    return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}.`
  })
}

/** Conversations of this kind by the lengths of what is said in them, in words. */
export function chatWorkloadSizes(options: Partial<ChatWorkloadOptions> = {}): Conversation<number>[] {
  return conversationsOf({ ...chatWorkloadDefaults, ...options }, (_, words) => words)
}

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant'
  readonly content: string
}

/** The messages of a turn's request, after the answers to the turns before it. */
export function messagesOf(
  conversation: Conversation<string>,
  turn: number,
  answers: readonly string[],
): readonly ChatMessage[] {
  const before = conversation.turns.slice(0, turn + 1).flatMap(({ user }, at): ChatMessage[] => {
    const question: ChatMessage = { role: 'user', content: user }
    return at < turn ? [question, { role: 'assistant', content: answers[at] ?? '' }] : [question]
  })
  return [{ role: 'system', content: conversation.system }, ...before]
}

function conversationsOf<Text>(
  options: ChatWorkloadOptions,
  write: (random: Random, words: number) => Text,
): Conversation<Text>[] {
  const stream = (kind: number, index: number): Random => seededRandom(mix32(mix32(options.seed ^ kind) + index))
  const systems = Array.from({ length: options.systemPrompts }, (_, i) =>
    write(stream(1, i), options.systemPromptWords),
  )
  const arrivals = stream(2, 0)
  let startMs = 0
  return Array.from({ length: options.conversations }, (_, i) => {
    const random = stream(3, i)
    if (i > 0) startMs += arrivals.exponential(options.arrivalGapMs)
    const systemPrompt = random.below(options.systemPrompts)
    return {
      id: `conversation-${i}`,
      startMs,
      systemPrompt,
      system: systems[systemPrompt] as Text,
      turns: Array.from({ length: options.turns }, (_, turn) => ({
        user: write(random, between(random, options.userWords)),
        outputTokens: between(random, options.outputTokens),
        thinkMs: turn === 0 ? 0 : random.exponential(options.thinkMs),
      })),
    }
  })
}

function between(random: Random, [least, most]: readonly [number, number]): number {
  return least + random.below(most - least + 1)
}
