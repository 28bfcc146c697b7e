import type { Case, OpenAiApi } from './case.ts'
import { openAiErrorCases } from './openai-error-cases.ts'
import { openAiStreamCases } from './openai-stream-cases.ts'

/** Cases for clients that speak OpenAI's API. */
export const openAiCases: readonly Case<OpenAiApi>[] = [...openAiErrorCases, ...openAiStreamCases]
