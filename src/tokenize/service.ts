import { availableParallelism } from 'node:os'
import { RouterError } from '../errors.ts'
import type { Log } from '../telemetry/log.ts'
import { scanBody, type ByteRange } from './body.ts'
import { readMultipartModel } from './multipart.ts'
import { PromptTokenizers } from './prompts.ts'
import { checkTokenIds, promptSource, type PromptSource } from './prompt-source.ts'
import { requestFields, type PromptKind, type RequestFields } from './request.ts'
import { TokenizerThreads, type Ticket } from './threads.ts'
import type { TokenizerSource } from './thread-messages.ts'
import type { Tokenizer } from './tokenizer.ts'

export type { PromptKind, RequestFields } from './request.ts'

export interface PromptServiceOptions {
  /** Threads for long prompts; processors − 1 but at most 3 if absent: each takes one of libuv's four while it encodes. */
  readonly threads?: number
  /** Budget of all token caches together. */
  readonly cacheBytes: number
  /** Long prompts that may wait for a thread. */
  readonly queued: number
  readonly log: Log
}

/** A request body that was checked and read, here or on a thread. */
export interface ReadBody {
  readonly fields: RequestFields
  /** Where the value of each top-level key lies in the body. */
  readonly ranges: ReadonlyMap<string, ByteRange>
  /** Where the prompt waits to be tokenized. */
  readonly held:
    | { readonly kind: 'here'; readonly source: PromptSource }
    | { readonly kind: 'thread'; readonly source: PromptSource['kind']; readonly ticket: Ticket }
}

export interface RequestTokens {
  /** One for each prompt of the request; read-only. */
  readonly prompts: readonly Uint32Array[]
  /** Leading tokens that equal those of an earlier request, summed over the prompts. */
  readonly cachedTokens: number
  /** Above 0 the prompt is known up to its first media only, and this is a guess at the tokens after. */
  readonly unknownTokens: number
  /** Why the prefix match cannot be used, if it cannot: `no_tokenizer`, or `no_prompt` for requests without one. */
  readonly unusable: string | null
}

/** What /tokenize and /detokenize need to know of a pool. */
export interface TokenizedPool {
  readonly model: string
  readonly maxModelLength: number | null
}

/** From body bytes to token ids, for all pools: one of the six calls of a request. */
export interface PromptService {
  /** Loads the tokenizer of a pool. @throws RouterError TOKENIZER_UNREADABLE */
  add(pool: string, source: TokenizerSource): Promise<void>
  /** Forgets the tokenizer of a pool. */
  remove(pool: string): void
  /** Tries to load a tokenizer and forgets it. @throws RouterError TOKENIZER_UNREADABLE */
  check(source: TokenizerSource): Promise<void>
  /** The pool's tokenizer, null if it has none. */
  tokenizer(pool: string): Tokenizer | null
  /** Checks and parses a body, on a thread if it is long. @throws RouterError BODY_*, TOKEN_ID_INVALID, TOKENIZER_BUSY, TOKENIZER_FAILED */
  read(body: Buffer, kind: PromptKind): Promise<ReadBody>
  /** A multipart/form-data body: its model, and no prompt. @throws RouterError BODY_INVALID */
  readForm(body: Buffer, contentType: string): Promise<ReadBody>
  /** The tokens of a body that was read. @throws RouterError BODY_INVALID, TEMPLATE_REFUSED, TOKEN_ID_INVALID, TOKENIZER_BUSY, TOKENIZER_FAILED */
  tokens(read: ReadBody, pool: string): Promise<RequestTokens>
  /** POST /tokenize in vLLM's form. `poolOf` finds the pool by the model's name or throws. */
  tokenize(
    body: Buffer,
    poolOf: (model: string) => TokenizedPool,
  ): Promise<{ count: number; max_model_len: number | null; tokens: number[] }>
  /** POST /detokenize in vLLM's form. */
  detokenize(body: Buffer, poolOf: (model: string) => TokenizedPool): Promise<{ prompt: string }>
  stats(): { queued: number; threads: number; restarts: number; cacheBytes: number }
  close(): Promise<void>
}

/** Bodies from this size on go to a thread: their text may be longer than about 8,000 tokens. */
export const longBodyBytes = 32 * 1024

/** Share of the cache budget for short prompts, which stay on the calling thread. */
const shortPromptShare = 0.25

const noTokens = { prompts: [], cachedTokens: 0, unknownTokens: 0 }

export function createPromptService(options: PromptServiceOptions): PromptService {
  const here = new PromptTokenizers(Math.floor(options.cacheBytes * shortPromptShare), false)
  const threads = new TokenizerThreads({
    threads: options.threads ?? Math.min(3, Math.max(1, availableParallelism() - 1)),
    queued: options.queued,
    cacheBytes: Math.floor(options.cacheBytes * (1 - shortPromptShare)),
    log: options.log,
  })

  const read = async (body: Buffer, kind: PromptKind): Promise<ReadBody> => {
    if (body.length >= longBodyBytes) {
      const { answer, ticket } = await threads.read(body, kind)
      return { fields: answer.fields, ranges: answer.ranges, held: { kind: 'thread', source: answer.source, ticket } }
    }
    const scanned = scanBody(body)
    const source = promptSource(scanned.value, kind)
    return { fields: requestFields(scanned.value, kind), ranges: scanned.ranges, held: { kind: 'here', source } }
  }

  const tokens = async (read: ReadBody, pool: string): Promise<RequestTokens> => {
    const source = read.held.kind === 'here' ? read.held.source.kind : read.held.source
    // Token ids need no tokenizer; without one nobody here knows the vocabulary's size, and the engine checks them.
    if (here.get(pool) === null && source !== 'ids') return { ...noTokens, unusable: 'no_tokenizer' }
    const made =
      read.held.kind === 'here' ? here.tokens(pool, read.held.source) : threads.tokens(read.held.ticket, pool)
    const tokenized = made instanceof Promise ? await made : made
    return {
      prompts: tokenized.prompts,
      cachedTokens: tokenized.cachedTokens,
      unknownTokens: tokenized.unknownTokens,
      unusable: tokenized.prompts.length === 0 ? 'no_prompt' : null,
    }
  }

  const tokenizerOf = (
    body: Readonly<Record<string, unknown>>,
    poolOf: (model: string) => TokenizedPool,
  ): { tokenizer: Tokenizer; pool: TokenizedPool } => {
    const pool = poolOf(requestFields(body, 'tokenize').model)
    const tokenizer = here.get(pool.model)
    if (tokenizer === null) throw new RouterError('TOKENIZER_FAILED', `No tokenizer is configured for "${pool.model}".`)
    return { tokenizer, pool }
  }

  return {
    async add(pool, source) {
      await here.add(pool, source)
      threads.add(pool, source)
    },
    remove(pool) {
      here.remove(pool)
      threads.remove(pool)
    },
    async check(source) {
      await new PromptTokenizers(0, false).add('', source)
    },
    tokenizer: (pool) => here.get(pool),
    read,
    async readForm(body, contentType) {
      const fields = requestFields({ model: await readMultipartModel(body, contentType) }, 'other')
      return { fields, ranges: new Map(), held: { kind: 'here', source: { kind: 'none' } } }
    },
    tokens,
    async tokenize(body, poolOf) {
      const fields = await read(body, 'tokenize')
      const pool = poolOf(fields.fields.model)
      const { prompts, unusable } = await tokens(fields, pool.model)
      const [prompt] = prompts
      if (prompt === undefined)
        throw new RouterError(
          'TOKENIZER_FAILED',
          `The prompt for "${pool.model}" cannot be tokenized (${unusable ?? 'no prompt'}).`,
        )
      return { count: prompt.length, max_model_len: pool.maxModelLength, tokens: Array.from(prompt) }
    },
    async detokenize(body, poolOf) {
      const scanned = scanBody(body)
      const { tokenizer } = tokenizerOf(scanned.value, poolOf)
      const source = promptSource({ prompt: scanned.value['tokens'] }, 'completion')
      const [ids] = source.kind === 'ids' ? source.prompts : []
      if (ids === undefined || (source.kind === 'ids' && source.prompts.length > 1)) {
        throw new RouterError('BODY_INVALID', '"tokens" must be a list of token ids.', { param: 'tokens' })
      }
      checkTokenIds([ids], tokenizer.vocabularySize, 'tokens')
      return { prompt: await tokenizer.detokenize(ids) }
    },
    stats() {
      const { cacheBytes, ...rest } = threads.stats()
      return { ...rest, cacheBytes: cacheBytes + here.cacheBytes }
    },
    close: () => threads.close(),
  }
}
