import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import Anthropic from '@anthropic-ai/sdk'
import OpenAI from 'openai'
import OpenAI6 from 'openai6'
import { hashOfKey } from '../../src/admission/api-keys.ts'
import { probeAi } from '../clients/ai-probe.ts'
import { anthropicCases, wrongKeyCase as wrongKeyOfAnthropic } from '../clients/anthropic-cases.ts'
import { probeAnthropic } from '../clients/anthropic-probe.ts'
import type { Case, ProbeRequest } from '../clients/case.ts'
import { openAiCases } from '../clients/openai-cases.ts'
import { wrongKeyCase } from '../clients/openai-error-cases.ts'
import { probeOpenAi } from '../clients/openai-probe.ts'
import { stageFor } from '../clients/stage.ts'

// Most of the time is clients' waiting before they try again.
suite('every answer is what a client needs', { concurrency: true }, () => {
  test('openai 7', async (t) => {
    const stage = await stageFor(t)
    const client = new OpenAI({ baseURL: `${stage.url}/v1`, apiKey: 'any' })
    await stage.play('openai 7', openAiCases, (request) => probeOpenAi(client, request))
    const tries = stage.fleet.log.flatMap(({ fields }) => fields['clientRetries'] ?? [])
    assert.ok(tries.includes(1) && tries.includes(2), 'the log tells how often a library has tried before')
  })

  test('openai 6', async (t) => {
    const stage = await stageFor(t)
    const client = new OpenAI6({ baseURL: `${stage.url}/v1`, apiKey: 'any' })
    // What the probe uses of it is the same in both.
    await stage.play('openai 6', openAiCases, (request) => probeOpenAi(client as unknown as OpenAI, request))
  })

  test('anthropic', async (t) => {
    const stage = await stageFor(t)
    const client = new Anthropic({ baseURL: stage.url, apiKey: 'any' })
    await stage.play('anthropic', anthropicCases, (request) => probeAnthropic(client, request))
  })

  test('AI SDK', async (t) => {
    const stage = await stageFor(t)
    await stage.play('ai', openAiCases.flatMap(asAiSees), (request) => probeAi(`${stage.url}/v1`, request))
  })

  test('keys', async (t) => {
    const stage = await stageFor(t, { apiKeys: [{ id: 'team', hash: hashOfKey('right') }] })
    const openAi = new OpenAI({ baseURL: `${stage.url}/v1`, apiKey: 'wrong' })
    await stage.play('openai 7 with a wrong key', [wrongKeyCase], (request) => probeOpenAi(openAi, request))
    const anthropic = new Anthropic({ baseURL: stage.url, apiKey: 'wrong' })
    const probe = (request: ProbeRequest) => probeAnthropic(anthropic, request)
    await stage.play('anthropic with a wrong key', [wrongKeyOfAnthropic], probe)
    await stage.play('ai with a wrong key', [wrongKeyCase], (request) => probeAi(`${stage.url}/v1`, request))
  })
})

/** The AI SDK has chats only, knows neither x-should-retry nor a time-out, and keeps only the message of an error event. */
function asAiSees(one: Case): Case[] {
  const { api, name, timeoutMs, expected } = one
  if (api !== 'chat' && api !== 'chatStream') return []
  if (name.startsWith('x-should-retry') || timeoutMs !== undefined) return []
  const { error, text } = expected
  if (api === 'chat' || error?.message === undefined || text === undefined) return [one]
  return [{ ...one, expected: { ...expected, error: { message: error.message } } }]
}
