import { createHash, randomBytes } from 'node:crypto'
import { deflateSync, gzipSync } from 'node:zlib'
import { model } from '../support/fleet.ts'
import { callsOf } from './accounts.ts'
import { type Sent } from './load.ts'
import { percentile, tally, Verdict, type Scenario } from './scenario.ts'

const chatPath = '/v1/chat/completions'
const chat = (more: string): string => `{"model":"${model}","messages":[{"role":"user","content":"Hi"}]${more}}`

/** Whether a refusal is in OpenAI's form. */
function isOpenAiError({ body }: Sent): boolean {
  try {
    const { error } = JSON.parse(body) as { error?: { message?: unknown; code?: unknown } }
    return typeof error?.message === 'string' && error.code !== undefined
  } catch {
    return false
  }
}

const bombs: Scenario = {
  number: '18',
  fault: 'gzip and deflate bombs as request bodies',
  promise: '415 or capped; memory + < 50 MB',
  quick: true,
  async run(rig) {
    const engines = await rig.engines(1)
    const router = await rig.router(engines)
    const client = rig.client(router)
    await client.burst(50)
    const before = router.rssMiB
    const callsBefore = await callsOf(engines)
    const zeros = Buffer.alloc(rig.size(256, 32) * 1024 * 1024, ' ')
    const bodies = [
      ['gzip', gzipSync(zeros)],
      ['deflate', deflateSync(zeros)],
    ] as const
    const sent: Sent[] = []
    for (let round = 0; round < rig.size(50, 10); round++)
      for (const [encoding, body] of bodies)
        sent.push(await client.post(chatPath, body, { headers: { 'content-encoding': encoding } }))
    const grown = router.rssMiB - before
    const verdict = new Verdict()
    verdict.add(
      `${sent.length} bombs of ${zeros.length / 2 ** 20} MiB: ${tally(sent.map(({ status }) => status))}`,
      sent.every(({ status }) => status === 415),
    )
    verdict.add(`memory grew by ${grown.toFixed(1)} MiB`, grown < 50)
    const calls = (await callsOf(engines)) - callsBefore
    verdict.add(`${calls} reached the engine`, calls === 0)
    return verdict.finding()
  },
}

/** Bodies that are no request, by name. */
const malformed: readonly (readonly [string, string | Buffer])[] = [
  ['depth 10,000', chat(`,"x":${'['.repeat(10_000)}${']'.repeat(10_000)}`)],
  ['a key that is read twice', chat(',"model":"other"')],
  ['messages twice', chat(',"messages":[]')],
  ['NaN', chat(',"temperature":NaN')],
  ['a list', '[]'],
  ['a text', '"text"'],
  ['null', 'null'],
  ['bad UTF-8', Buffer.from(chat(',"user":"\xff\xfe"'), 'latin1')],
  ['no body', ''],
  ['half a body', chat('').slice(0, 30)],
]

/** Bodies that JSON allows and an engine may judge. */
const odd: readonly (readonly [string, string])[] = [
  ['__proto__', chat(',"max_tokens":1,"__proto__":{"stream":true}')],
  ['a lone surrogate', `{"model":"${model}","max_tokens":1,"messages":[{"role":"user","content":"\\ud800"}]}`],
]

const badJson: Scenario = {
  number: '20',
  fault: 'bodies that are not JSON, or JSON that parsers read differently',
  promise:
    '400 in OpenAI’s form in < 20 ms, the process alive; lone surrogates and __proto__ go on untouched (decision 19)',
  quick: false,
  async run(rig) {
    const engines = await rig.engines(1)
    const router = await rig.router(engines)
    const client = rig.client(router)
    await client.burst(20)
    const callsBefore = await callsOf(engines)
    const verdict = new Verdict()
    const slowest: number[] = []
    let wrong = 0
    for (const [name, body] of malformed) {
      const sent: Sent[] = []
      for (let round = 0; round < rig.size(100, 5); round++) sent.push(await client.post(chatPath, body))
      const bad = sent.filter((one) => one.status !== 400 || !isOpenAiError(one))
      if (bad.length > 0) verdict.add(`${name}: ${tally(bad.map(({ status }) => status))}`, false)
      wrong += bad.length
      slowest.push(
        percentile(
          sent.map(({ totalMs }) => totalMs),
          0.99,
        ),
      )
    }
    verdict.add(`${malformed.length} kinds: ${wrong} not a 400 in OpenAI’s form`, wrong === 0)
    verdict.add(`p99 of the slowest kind ${Math.max(...slowest).toFixed(1)} ms`, Math.max(...slowest) < 20)
    const calls = (await callsOf(engines)) - callsBefore
    verdict.add(`${calls} reached the engine`, calls === 0)
    for (const [name, body] of odd) {
      const { status } = await client.post(chatPath, body)
      verdict.add(`${name}: ${status}`, status === 200 || status === 400)
    }
    return verdict.finding(slowest)
  },
}

const wrongTypes: readonly (readonly [string, string, string])[] = [
  ['messages a text', chatPath, `{"model":"${model}","messages":"Hi"}`],
  ['no model', chatPath, '{"messages":[{"role":"user","content":"Hi"}]}'],
  ['an unknown model', chatPath, '{"model":"other","messages":[{"role":"user","content":"Hi"}]}'],
  ['a model of 10 kB', chatPath, `{"model":"${'m'.repeat(10_000)}","messages":[{"role":"user","content":"Hi"}]}`],
  ['n = -1', chatPath, chat(',"n":-1')],
  ['max_tokens 1e18', chatPath, chat(',"max_tokens":1e18')],
  ['a negative id', '/v1/completions', `{"model":"${model}","prompt":[-1]}`],
  ['a fraction as id', '/v1/completions', `{"model":"${model}","prompt":[1.5]}`],
  ['2^53 as id', '/v1/completions', `{"model":"${model}","prompt":[9007199254740992]}`],
]

const badTypes: Scenario = {
  number: '21',
  fault: 'wrong types: messages a text, model missing, unknown or 10 kB long, n = -1, max_tokens 1e18, odd token ids',
  promise: '400 or 404, never 500',
  quick: true,
  async run(rig) {
    const engines = await rig.engines(1)
    const router = await rig.router(engines)
    const client = rig.client(router)
    const verdict = new Verdict()
    const statuses: number[] = []
    for (const [name, path, body] of wrongTypes) {
      const sent = await client.post(path, body)
      statuses.push(sent.status)
      const good = (sent.status === 400 || sent.status === 404) && isOpenAiError(sent)
      if (!good) verdict.add(`${name}: ${sent.status}`, false)
    }
    verdict.add(`${wrongTypes.length} kinds: ${tally(statuses)}`)
    verdict.add(`afterwards ${(await client.chat()).status}`)
    return verdict.finding()
  },
}

const badKeys: Scenario = {
  number: '24',
  fault: 'API keys that are wrong or absent',
  promise: '401, compared in constant time; /metrics and /admin are not on the public port',
  quick: true,
  async run(rig) {
    const key = randomBytes(24).toString('base64url')
    const apiKeys = [{ id: 'one', hash: `sha256:${createHash('sha256').update(key).digest('hex')}` }]
    const engines = await rig.engines(1)
    const router = await rig.router(engines, { config: { apiKeys } })
    const client = rig.client(router)
    const near = `${key.slice(0, -1)}${key.endsWith('a') ? 'b' : 'a'}`
    const tries: (Sent & { readonly withKey: string })[] = []
    for (const withKey of ['', 'x', near, key]) {
      const headers = withKey === '' ? {} : { authorization: `Bearer ${withKey}` }
      tries.push({ ...(await client.post(chatPath, chat(',"max_tokens":1'), { headers })), withKey })
    }
    const refused = tries.filter(({ withKey }) => withKey !== key)
    const hidden = await Promise.all(
      ['/metrics', '/admin/workers', '/readyz', '/ui'].map(
        async (path) => (await fetch(router.url + path, { headers: { authorization: `Bearer ${key}` } })).status,
      ),
    )
    const verdict = new Verdict()
    verdict.add(
      `none, wrong, nearly right: ${tally(refused.map(({ status }) => status))}`,
      refused.every(({ status }) => status === 401),
    )
    verdict.add('one text for all', new Set(refused.map(({ body }) => body)).size === 1)
    verdict.add(`right: ${tries.at(-1)?.status ?? 0}`, tries.at(-1)?.status === 200)
    verdict.add(
      `admin paths on the public port: ${tally(hidden)}`,
      hidden.every((status) => status === 404),
    )
    const calls = await callsOf(engines)
    verdict.add(`${calls} upstream calls`, calls === 1)
    verdict.add('keys are looked up by their hash (`test/admission/api-keys.test.ts`)')
    return verdict.finding()
  },
}

export const input: readonly Scenario[] = [bombs, badJson, badTypes, badKeys]
