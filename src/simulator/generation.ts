import type { Choice } from './wording.ts'
import type { EngineDrive } from './engine-drive.ts'
import type { EngineCall } from './engine-call.ts'
import type { OutputVocabulary } from './tokenizer.ts'

export interface GenerationListeners {
  onToken(choice: Choice, token: number, text: string): void
  /** All choices of all prompts are complete. */
  onEnd(): void
}

/** The sequences of one HTTP request, run together on one rank. */
export class Generation {
  readonly choices: readonly Choice[]
  readonly #call: EngineCall
  readonly #drive: EngineDrive
  readonly #ids: readonly string[]
  #open: number

  /** @param id Unique among all requests that the rank ever sees. */
  constructor(id: string, call: EngineCall, drive: EngineDrive) {
    this.#call = call
    this.choices = call.prompts.flatMap((prompt, at) =>
      Array.from({ length: call.choices }, (_, choice): Choice => {
        const index = at * call.choices + choice
        return { index, prompt, tokens: [], text: '', cachedTokens: null, finished: false }
      }),
    )
    this.#drive = drive
    this.#ids = this.choices.map(({ index }) => `${id}-${index}`)
    this.#open = this.choices.length
  }

  /** Tokens of the first choices may come before this returns. */
  start(vocabulary: OutputVocabulary, listeners: GenerationListeners): void {
    const call = this.#call
    this.choices.forEach((choice, at) => {
      this.#drive.start(
        {
          id: this.#ids[at] as string,
          tokens: choice.prompt,
          outputTokens: call.outputTokens,
          choice: choice.index % call.choices,
          reportWhole: call.reportWhole,
          ...(call.cacheSalt === null ? {} : { cacheSalt: call.cacheSalt }),
          ...(call.lora === null ? {} : { lora: call.lora }),
          ...(call.sessionId === null ? {} : { sessionId: call.sessionId }),
        },
        {
          onToken: (token, cachedTokens) => {
            const text = vocabulary.texts.get(token) ?? ''
            choice.cachedTokens = cachedTokens
            choice.tokens.push(token)
            choice.text += text
            choice.finished = choice.tokens.length === call.outputTokens
            listeners.onToken(choice, token, text)
          },
          onFinished: () => {
            this.#open--
            if (this.#open === 0) listeners.onEnd()
          },
        },
      )
    })
  }

  /** Frees everything at once; harmless when it has already ended. */
  abort(): void {
    for (const id of this.#ids) this.#drive.abort(id)
  }
}
