import { test } from 'node:test'
import OpenAI from 'openai'
import OpenAI6 from 'openai6'
import { openAiCases } from '../clients/openai-cases.ts'
import { probeOpenAi } from '../clients/openai-probe.ts'
import { stageFor } from '../clients/stage.ts'

const libraries = { openai7: OpenAI, openai6: OpenAI6 as unknown as typeof OpenAI }

for (const [name, Client] of Object.entries(libraries)) {
  test(`${name} makes of every answer what it should`, async (t) => {
    const stage = await stageFor(t)
    const client = new Client({ baseURL: `${stage.fleet.publicUrl}/v1`, apiKey: 'any' })
    const probe = (requests: Parameters<Parameters<typeof stage.play>[2]>[0]) =>
      Promise.all(requests.map((request) => probeOpenAi(client, request)))
    await stage.play(name, openAiCases, probe, { kinds: true })
  })
}
