/** What has been generated for one choice of one prompt. */
export interface Choice {
  readonly index: number
  readonly prompt: Uint32Array
  tokens: number[]
  text: string
  /** Null until the engine has started on it. */
  cachedTokens: number | null
  finished: boolean
}

/** How an endpoint says what the engine generated. */
export interface Wording {
  /** The body of an answer that is not streamed. */
  whole(): object
  /** The events of a streamed answer; null where none is asked for. */
  readonly events: EventWording | null
}

/** Server-sent events, each ended by a blank line; an empty text is none. */
export interface EventWording {
  /** Before the engine has begun. */
  opening(): string
  token(choice: Choice, token: number, text: string): string
  end(): string
}

/** Prompt and cached tokens of an answer: every prompt counts once, however many choices it has. */
export function tokenCounts(
  choices: readonly Choice[],
  choicesPerPrompt: number,
): { readonly promptTokens: number; readonly completionTokens: number; readonly cachedTokens: number } {
  const prompts = choices.filter(({ index }) => index % choicesPerPrompt === 0)
  return {
    promptTokens: prompts.reduce((sum, { prompt }) => sum + prompt.length, 0),
    completionTokens: choices.reduce((sum, { tokens }) => sum + tokens.length, 0),
    cachedTokens: prompts.reduce((sum, choice) => sum + (choice.cachedTokens ?? 0), 0),
  }
}
