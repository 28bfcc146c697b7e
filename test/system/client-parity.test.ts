import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import Anthropic from '@anthropic-ai/sdk'
import OpenAI from 'openai'
import OpenAI6 from 'openai6'
import { aiSession, anthropicSession, masked, openAiSession, type Session } from '../clients/sessions.ts'
import { callsTool, toolSession } from '../clients/tools.ts'
import { fleetFor } from '../support/fleet.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'

/** Plays a session straight at an engine and through the router before it and another one. */
async function samePlayed(t: TestContext, play: (url: string) => Promise<Session>): Promise<void> {
  const fleet = await fleetFor(t, { workers: 2 })
  const { url } = fleet.worker(0)
  // The first time warms the engine: the router finds the same there as who knows the engine itself, cached tokens included.
  await play(url)
  await fleet.settled()
  const direct = masked(await play(url))
  const routed = masked(await play(fleet.publicUrl))
  for (const part of Object.keys(direct)) assert.deepEqual(routed[part], direct[part], part)
  await fleet.settled()
  assert.ok((await fleet.workers()).every(({ inFlight }) => inFlight.requests === 0))
}

test('openai 7 gets the same through the router as from an engine', (t) =>
  samePlayed(t, (url) => openAiSession(new OpenAI({ baseURL: `${url}/v1`, apiKey: 'any', maxRetries: 0 }))))

test('openai 6 gets the same through the router as from an engine', (t) =>
  samePlayed(t, (url) =>
    openAiSession(new OpenAI6({ baseURL: `${url}/v1`, apiKey: 'any', maxRetries: 0 }) as unknown as OpenAI),
  ))

test('Anthropic’s library gets the same through the router as from an engine', (t) =>
  samePlayed(t, (url) => anthropicSession(new Anthropic({ baseURL: url, apiKey: 'any', maxRetries: 0 }))))

test('the AI SDK gets the same through the router as from an engine', (t) =>
  samePlayed(t, (url) => aiSession(`${url}/v1`)))

test('tool calls are the same through the router as from an engine, in every client', async (t) => {
  const engine = await scriptedEngine(t, callsTool)
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url] })
  const play = (url: string): Promise<Session> => {
    const openAi = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'any', maxRetries: 0 })
    return toolSession(openAi, new Anthropic({ baseURL: url, apiKey: 'any', maxRetries: 0 }), `${url}/v1`)
  }
  const routed = await play(fleet.publicUrl)
  assert.deepEqual(routed, await play(engine.url))
  assert.deepEqual(routed['ai'], [[['weather', { city: 'Zürich' }]], [['weather', { city: 'Zürich' }]]])
})
