import { jsonOf, type EngineAnswer } from './engine-http.ts'
import type { EngineFacts } from './engine.ts'

/** The models of a `/v1/models` answer; none where it has another form. LoRA adapters have a parent (vLLM). */
export function modelRows(answer: EngineAnswer | null): EngineFacts['models'] {
  const data = (jsonOf(answer) as { data?: unknown } | null)?.data
  if (!Array.isArray(data)) return []
  return data.flatMap((row: unknown) => {
    const { id, parent, root, max_model_len: length } = (row ?? {}) as Record<string, unknown>
    if (typeof id !== 'string') return []
    return [
      {
        id,
        parent: typeof parent === 'string' ? parent : null,
        root: typeof root === 'string' ? root : null,
        maxModelLength: typeof length === 'number' ? length : null,
      },
    ]
  })
}
