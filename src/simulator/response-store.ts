/** A response as it is answered; `status` of one in the background changes. */
export type ResponseBody = Readonly<Record<string, unknown>> & { readonly id: string; readonly status: string }

export interface StoredResponse {
  readonly body: ResponseBody
  /** The chat that its prompt was made of. */
  readonly messages: readonly unknown[]
  readonly text: string
  /** Stops what still generates; null for a response that was answered as it came. */
  readonly abort: (() => void) | null
}

/** Responses that later ones can go on from, as many as fit; the oldest go first. */
export class ResponseStore {
  readonly #capacity: number
  readonly #byId = new Map<string, StoredResponse>()

  /** @param capacity 0: nothing is kept, as in vLLM without VLLM_ENABLE_RESPONSES_API_STORE */
  constructor(capacity: number) {
    this.#capacity = capacity
  }

  get enabled(): boolean {
    return this.#capacity > 0
  }

  get(id: string): StoredResponse | null {
    return this.#byId.get(id) ?? null
  }

  /** Keeps a response, in the place of an earlier state of it. */
  set(response: StoredResponse): void {
    const { id } = response.body
    this.#byId.delete(id)
    this.#byId.set(id, response)
    for (const oldest of this.#byId.keys()) {
      if (this.#byId.size <= this.#capacity) return
      this.#byId.delete(oldest)
    }
  }
}
