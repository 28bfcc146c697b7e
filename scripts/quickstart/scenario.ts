import { fileURLToPath } from 'node:url'
import type { ChatWorkloadOptions } from '../../src/simulator/workload.ts'

/** What the quick start plays over HTTP and `npm run bench quality` in virtual time: one place for both. */
export const scenario = {
  model: 'demo',
  workers: 4,
  /** Blocks that an engine's cache holds; 16 tokens each, as engines have by default. */
  engine: { capacityBlocks: 8_192 },
  workload: {
    seed: 1,
    conversations: 32,
    systemPrompts: 6,
    turns: 5,
    systemPromptWords: 800,
    userWords: [80, 300],
    outputTokens: [20, 60],
    thinkMs: 500,
    arrivalGapMs: 60,
  },
} as const satisfies { workload: ChatWorkloadOptions; [option: string]: unknown }

/** A few seconds' worth, for tests and the impatient. */
export const quickWorkload: ChatWorkloadOptions = {
  ...scenario.workload,
  conversations: 12,
  systemPrompts: 3,
  turns: 4,
  systemPromptWords: 400,
  userWords: [150, 400],
  outputTokens: [8, 24],
  thinkMs: 100,
  arrivalGapMs: 80,
}

/** Played before each measurement and not counted, so that no policy pays for cold code. Shares no prompt with the rest. */
export const warmUpWorkload: ChatWorkloadOptions = {
  ...scenario.workload,
  seed: 1_000,
  conversations: 8,
  turns: 1,
  outputTokens: [10, 20],
  arrivalGapMs: 30,
}

export const tokenizerPath = fileURLToPath(new URL('../../config/tokenizers/demo', import.meta.url))

/** Tokens of the demonstration tokenizer for one word of the workload (measured over its prompts: 1.87). */
const tokensPerWord = 1.87

/** The same workload for `chatWorkloadTokens`, where a word is one token: as many tokens as the texts have. */
export function inTokens(workload: ChatWorkloadOptions): ChatWorkloadOptions {
  const tokens = (words: number): number => Math.round(words * tokensPerWord)
  const [least, most] = workload.userWords
  return {
    ...workload,
    systemPromptWords: tokens(workload.systemPromptWords),
    userWords: [tokens(least), tokens(most)],
  }
}
