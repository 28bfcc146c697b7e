import { call, eventually, generate } from './client.ts'
import type { Mocker } from './mocker.ts'
import type { Report } from './report.ts'
import type { Router } from './router.ts'

const eventsMs = 20_000
const patienceMs = 4_000
const blocks = 10

/**
 * Where the mocker does not do as the engine that it imitates. Nothing here is a fault of anybody's: it is told, so that
 * nobody takes it for one. Sent straight to the mocker.
 */
export async function ownWays(report: Report, router: Router, mocker: Mocker): Promise<void> {
  report.section('What the mocker does in its own way')
  const { blockSize, blocks: room } = mocker.options
  const path = `${mocker.url}/v1/completions`
  const prompt = Array.from({ length: blocks * blockSize }, (_, at) => 7_000 + at)
  const body = { model: 'model', prompt, max_tokens: 1, return_token_ids: undefined }
  const reported = (tokens: number | null): string => (tokens === null ? 'no figure' : `${tokens} tokens`)
  await generate(path, body)
  const held = await eventually(
    async () => ((await router.heldBlocks(mocker.url, [...prompt, 0], null)) === blocks ? true : null),
    eventsMs,
  )
  report.check('the map learns of a request that went straight to the mocker', held === true)
  const again = await generate(path, body)
  report.say(
    `a prompt of ${blocks} whole blocks, sent again: ${reported(again.cachedTokens)} of ${prompt.length} cached`,
  )
  const salted = await generate(path, { ...body, cache_salt: 'tenant' })
  const expected = await router.heldBlocks(mocker.url, [...prompt, 0], 'tenant')
  report.say(`under a cache salt: ${reported(salted.cachedTokens)} cached; the router expects ${expected} blocks`)
  // Last, since the one that imitates SGLang answers nothing any more.
  const tooLong = Array.from({ length: (room + 10) * blockSize }, (_, at) => 9_000 + at)
  const answer = await call(path, {
    body: { ...body, prompt: tooLong },
    signal: AbortSignal.timeout(patienceMs),
  }).catch(() => null)
  report.say(`a prompt longer than its cache: ${answer === null ? `no answer in ${patienceMs} ms` : answer.status}`)
}
