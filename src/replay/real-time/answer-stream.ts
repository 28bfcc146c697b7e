/** What a streamed completion has told so far. */
export class AnswerStream {
  /** When its first and its latest token came; NaN before. */
  firstTokenMs = NaN
  lastTokenMs = NaN
  text = ''
  /** Events that brought text, or may have. */
  tokens = 0
  usage: Usage | null = null
  /** What the engine says went wrong. */
  fault: string | null = null
  isComplete = false
  #rest = ''

  add(text: string, nowMs: number): void {
    const events = (this.#rest + text).split('\n\n')
    this.#rest = events.pop() ?? ''
    for (const event of events) {
      const data = event.startsWith('data: ') ? event.slice('data: '.length) : null
      if (data === '[DONE]') this.isComplete = true
      else if (data !== null) this.#read(data, nowMs)
    }
  }

  #read(data: string, nowMs: number): void {
    let part: Part
    try {
      part = JSON.parse(data) as Part
    } catch {
      this.fault ??= 'an event of the stream is not JSON'
      return
    }
    if (part.error !== undefined) this.fault ??= String(part.error.message)
    this.usage = part.usage ?? this.usage
    const [choice] = part.choices ?? []
    if (choice === undefined) return
    if (this.tokens++ === 0) this.firstTokenMs = nowMs
    this.lastTokenMs = nowMs
    this.text += choice.text ?? ''
  }
}

interface Usage {
  readonly completion_tokens?: number
  readonly prompt_tokens_details?: { readonly cached_tokens?: number | null } | null
}

interface Part {
  readonly error?: { readonly message?: unknown }
  readonly usage?: Usage | null
  readonly choices?: readonly { readonly text?: string }[]
}
