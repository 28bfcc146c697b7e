import type { Engine } from '../engine.ts'
import { modelRows } from '../model-rows.ts'

/** Any server with OpenAI's paths: nothing is known of its cache, nor of its load but what this router sends it. */
export const openai: Engine = {
  name: 'openai',
  countsStores: false,
  recognizes: () => true,

  async facts(http, baseUrl, headers) {
    const models = await http.ask(`${baseUrl}/v1/models`, { headers })
    // A server without this path tells of no models; one that fails to answer is asked again.
    if (models === null || models.status >= 500) return null
    return {
      models: modelRows(models),
      startedAt: null,
      ranks: [{ rank: 0, blockSize: null, capacityBlocks: null, events: null }],
    }
  },

  load: () => Promise.resolve(null),
}
