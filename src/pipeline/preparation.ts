import { RouterError } from '../errors.ts'
import type { KeyMaker } from '../kv/keys.ts'
import type { PromptService } from '../tokenize/service.ts'
import type { Pools } from '../workers/pool.ts'
import type { Incoming, Prepared } from './incoming.ts'
import { modelTarget } from './model-target.ts'
import type { ResponseOwners } from './response-owners.ts'

export interface PreparationParts {
  readonly prompts: PromptService
  readonly pools: Pools
  readonly owners: ResponseOwners
  readonly keys: KeyMaker
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
    const { prompts: service, pools, owners, keys, clock } = this.#o
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
    const sessionId = incoming.sessionId ?? fields.sessionId
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
        session: sessionId === null ? null : keys.nameOf('session', sessionId),
        user: fields.user,
        keyId: incoming.caller.keyId,
        priority: fields.priority,
        stream: fields.stream,
        maxTokens: fields.maxTokens,
        header: (name) => (secretHeaders.has(name) ? null : headerOf(incoming.rawHeaders, name)),
      },
    }
  }
}

/** What a form with a sound file counts as: half a minute of speech, which is what speech models read at a time. */
const formTokens = 1500

/** Faults of ours, not of the request: it is routed by load. */
const withoutTokens: ReadonlySet<string> = new Set(['TOKENIZER_BUSY', 'TOKENIZER_FAILED'])

/** What no policy gets to see. */
const secretHeaders: ReadonlySet<string> = new Set([
  'authorization',
  'proxy-authorization',
  'x-api-key',
  'api-key',
  'cookie',
])

/** The first value under a lower-case name in a flat list of headers. */
function headerOf(rawHeaders: readonly string[], name: string): string | null {
  for (let i = 0; i + 1 < rawHeaders.length; i += 2)
    if (rawHeaders[i]?.toLowerCase() === name) return rawHeaders[i + 1] ?? null
  return null
}
