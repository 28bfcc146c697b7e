import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runSimulate, simulateOptions, simulateUsage } from '../../src/simulator/command.ts'
import { until } from '../support/until.ts'
import { post } from './simulators.ts'

interface Session {
  readonly lines: string[]
  readonly code: Promise<number>
  end(): void
}

function simulate(...argv: string[]): Session {
  const lines: string[] = []
  let end = (): void => undefined
  const ended = new Promise<void>((resolve) => (end = resolve))
  const code = runSimulate(argv, { out: (text) => lines.push(text), error: (text) => lines.push(text), ended })
  return { lines, code, end: () => end() }
}

const anyPorts = ['--http-port', '0', '--events-port', '0', '--replay-port', '0']

test('it starts engines with the demonstration tokenizer, says where they are, and ends when asked', async () => {
  const session = simulate('--workers', '2', '--model', 'demo', '--block-size', '8', '--time-scale', '20', ...anyPorts)
  await until(() => session.lines.length === 2, 'both engines are there', 10_000)
  const places = session.lines.map((line) => /^(\S+)  events (tcp:\S+)  replay (tcp:\S+)$/.exec(line)?.slice(1) ?? [])
  assert.equal(new Set(places.flat()).size, 6)
  const [url = ''] = places[0] ?? []
  const messages = [
    { role: 'user', content: 'What is a good word for a long day by the sea, and why would people want it?' },
  ]
  const ask = async () => {
    const answer = await post({ url }, '/v1/chat/completions', { model: 'demo', messages, max_tokens: 5 })
    return (await answer.json()) as {
      choices: { message: { content: string } }[]
      usage: { prompt_tokens: number; prompt_tokens_details: { cached_tokens: number } }
    }
  }
  const first = await ask()
  assert.match(first.choices[0]?.message.content ?? '', /^( [a-z]+){5}$/)
  const { usage } = await ask()
  assert.equal(usage.prompt_tokens_details.cached_tokens, 8 * Math.floor((usage.prompt_tokens - 1) / 8))
  session.end()
  assert.equal(await session.code, 0)
  await assert.rejects(fetch(`${url}/health`))
})

test('flags open what is closed otherwise: token ids in, and faults', async () => {
  const session = simulate('--workers', '1', '--events', 'off', '--enable-scale-out', '--faults', '--http-port', '0')
  await until(() => session.lines.length === 1, 'the engine is there', 10_000)
  const [url = ''] = session.lines
  const generate = () =>
    post({ url }, '/inference/v1/generate', { token_ids: [5, 6], sampling_params: { max_tokens: 1 } })
  assert.equal((await generate()).status, 200)
  assert.equal((await post({ url }, '/simulator/fault', { kind: 'status', status: 503, count: 1 })).status, 200)
  assert.deepEqual([(await generate()).status, (await generate()).status], [503, 200])
  session.end()
  assert.equal(await session.code, 0)
})

test('a Messages body is counted as the chat that it stands for', async () => {
  const session = simulate('--workers', '1', '--events', 'off', '--http-port', '0')
  await until(() => session.lines.length === 1, 'the engine is there', 10_000)
  const [url = ''] = session.lines
  const user = { role: 'user', content: 'What is a good word for a long day by the sea?' }
  const counted = async (path: string, body: object, field: string): Promise<unknown> =>
    ((await (await post({ url }, path, body)).json()) as Record<string, unknown>)[field]
  const system = { role: 'system', content: 'Be brief.' }
  assert.equal(
    await counted(
      '/v1/messages/count_tokens',
      { model: 'simulated', system: 'Be brief.', messages: [user] },
      'input_tokens',
    ),
    await counted('/tokenize', { messages: [system, user] }, 'count'),
  )
  session.end()
  assert.equal(await session.code, 0)
})

test('--help names every option with its default', async () => {
  const session = simulate('--help')
  assert.equal(await session.code, 0)
  assert.deepEqual(session.lines, [simulateUsage])
  for (const name of Object.keys(simulateOptions)) assert(simulateUsage.includes(`--${name} `), name)
  for (const [name, { value, help }] of Object.entries<{ value: string; help: string }>(simulateOptions))
    assert(!simulateUsage.includes(`--${name} ${value}${help}`), `--${name} stands apart from its help`)
})

test('what cannot be is refused with the option and what it wants', async () => {
  const cases: [argv: string[], message: RegExp][] = [
    [['--workers', '0'], /--workers must be a whole number of at least 1, not "0"/],
    [['--workers', 'many'], /--workers must be/],
    [['--time-scale', '0'], /--time-scale must be a number of at least 0.001/],
    [['--event-hashes', 'hex'], /--event-hashes must be int or bytes/],
    [['--lora-modules', 'sql'], /NAME=PATH/],
    [['--worker', '1'], /--worker.*--help/],
    [['--engine', 'other'], /--engine must be vllm or sglang/],
    [['--enable-cache-report'], /--enable-cache-report is for engines of the kind sglang, not vllm/],
    [['--engine', 'sglang', '--prefix-caching-hash-algo', 'sha256_cbor'], /must be sha256 or fast for this engine/],
  ]
  for (const [argv, message] of cases) {
    await assert.rejects(simulate(...argv).code, { code: 'CONFIG_INVALID', message })
  }
  await assert.rejects(simulate('--model-path', './nowhere').code, { code: 'TOKENIZER_UNREADABLE' })
})
