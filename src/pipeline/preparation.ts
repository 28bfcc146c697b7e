import { RouterError } from '../errors.ts'
import type { PromptService } from '../tokenize/service.ts'
import type { Pools } from '../workers/pool.ts'
import type { Incoming, Prepared } from './incoming.ts'
import { modelTarget } from './model-target.ts'
import type { ResponseOwners } from './response-owners.ts'

export interface PreparationParts {
  readonly prompts: PromptService
  readonly pools: Pools
  readonly owners: ResponseOwners
  /** Monotonic milliseconds, with a fraction. */
  readonly clock: () => number
}

/** Reads a request, resolves its model and tokenizes its prompt: all of a request that takes time before it is routed. */
export class Preparation {
  readonly #o: PreparationParts

  constructor(parts: PreparationParts) {
    this.#o = parts
  }

  /** @throws RouterError BODY_*, MODEL_NOT_FOUND, MODEL_NOT_ALLOWED, RESPONSE_NOT_FOUND, TEMPLATE_REFUSED, TOKEN_ID_INVALID */
  async of(incoming: Incoming): Promise<Prepared> {
    const { prompts: service, pools, owners, clock } = this.#o
    const arrivedMs = clock()
    const { endpoint } = incoming
    const read = await (endpoint.multipart
      ? service.readForm(incoming.body, incoming.contentType)
      : service.read(incoming.body, endpoint.prompt))
    const { fields } = read
    const target = modelTarget(fields.model, incoming.caller, pools, endpoint.modelOptional)
    const owner = fields.previousResponseId === null ? null : owners.owner(fields.previousResponseId)
    const startMs = clock()
    let prompts: readonly Uint32Array[] = []
    let unknownTokens = 0
    let fallback: string | null
    try {
      const tokens = await service.tokens(read, target.pool.model)
      prompts = tokens.prompts
      unknownTokens = tokens.unknownTokens
      fallback = tokens.unusable
    } catch (error) {
      if (!(error instanceof RouterError) || !withoutTokens.has(error.code)) throw error
      fallback = error.code.toLowerCase()
    }
    const longest = prompts.reduce<Uint32Array | null>(
      (best, prompt) => (best === null || prompt.length > best.length ? prompt : best),
      null,
    )
    return {
      incoming,
      read,
      target,
      owner,
      prompts,
      longest,
      unknownTokens,
      fallback,
      tokenizeUs: (clock() - startMs) * 1000,
      arrivedMs,
      policy: {
        model: target.pool.model,
        adapter: target.adapter,
        promptTokens: longest?.length ?? 0,
        promptTokensEstimate:
          longest === null
            ? endpoint.multipart
              ? formTokens
              : Math.ceil(incoming.body.length / 4)
            : longest.length + unknownTokens,
        sessionId: incoming.sessionId ?? fields.sessionId,
        priority: fields.priority,
        stream: fields.stream,
        maxTokens: fields.maxTokens,
      },
    }
  }
}

/** What a form with a sound file counts as: half a minute of speech, which is what speech models read at a time. */
const formTokens = 1500

/** Faults of ours, not of the request: it is routed by load. */
const withoutTokens: ReadonlySet<string> = new Set(['TOKENIZER_BUSY', 'TOKENIZER_FAILED'])
