/**
 * The quick start: four simulated engines, the router before them, and a chat workload that shows what routing by KV
 * cache wins over policies that do not look at it. Then it keeps serving.
 */
import { parseArgs } from 'node:util'
import { setTimeout as sleep } from 'node:timers/promises'
import { checkConfig } from '../src/config/load.ts'
import { RouterError } from '../src/errors.ts'
import { startRouter, type Router } from '../src/main.ts'
import { chatWorkload } from '../src/simulator/workload.ts'
import { silentLog } from '../src/telemetry/log.ts'
import { drive } from './quickstart/drive.ts'
import { startEngines, type Engines } from './quickstart/engines.ts'
import { outcomeOf, tableOf, wins, type Outcome } from './quickstart/outcome.ts'
import { Progress } from './quickstart/progress.ts'
import { quickWorkload, scenario, tokenizerPath, warmUpWorkload } from './quickstart/scenario.ts'

const usage = `Usage: npm run quickstart -- [options]

Starts ${scenario.workers} simulated engines and the router, plays a multi-turn chat workload under three policies, compares
them, and keeps serving until Ctrl-C.

  --once       end after the comparison: exit code 0 if kv-aware won, 1 if not
  --quick      a smaller workload
  --port PORT  public port (default: 8080); the admin port is the next one
  --help       this text`

/** The last one stays up to serve. */
const policies = ['round-robin', 'least-loaded', 'kv-aware'] as const
const readyTimeoutMs = 15_000

interface Options {
  readonly once: boolean
  readonly quick: boolean
  readonly port: number
}

/** The router under one policy, before engines of its own whose caches are empty. */
interface Stage {
  readonly router: Router
  readonly engines: Engines
}

const say = (text: string): void => console.log(text)

async function main(argv: readonly string[]): Promise<number> {
  const options = optionsOf(argv)
  if (options === null) {
    say(usage)
    return 0
  }
  const ended = endSignal()
  const { conversations, turns, systemPrompts } = options.quick ? quickWorkload : scenario.workload
  say(
    `Warmroute quick start: ${scenario.workers} simulated engines, ${conversations} conversations of ${turns} turns that share ${systemPrompts} system`,
  )
  say('prompts, streamed over HTTP through the router; the same three times, each time with empty caches.\n')

  const outcomes: Outcome[] = []
  for (const policy of policies) {
    const last = policy === policies.at(-1)
    const stage = await open(policy, last ? options.port : 0)
    try {
      outcomes.unshift(await measured(policy, stage, options.quick, ended.signal))
      if (!last) continue
      const won = showOutcomes(outcomes)
      if (options.once) return won ? 0 : 1
      showServing(stage.router)
      await ended.promise
      say('\nEnding: running answers finish first.')
    } catch (fault) {
      if (!ended.signal.aborted) throw fault
      say('\nEnded before the comparison was complete.')
      return 130
    } finally {
      await stage.router.stop()
      await stage.engines.stop()
    }
  }
  return 0
}

/** Null where help is asked for. Throws RouterError CONFIG_INVALID. */
function optionsOf(argv: readonly string[]): Options | null {
  const options = {
    once: { type: 'boolean' },
    quick: { type: 'boolean' },
    port: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  } as const
  let values
  try {
    values = parseArgs({ args: [...argv], options }).values
  } catch (cause) {
    throw new RouterError('CONFIG_INVALID', `${cause instanceof Error ? cause.message : String(cause)}\n\n${usage}`, {
      cause,
    })
  }
  if (values.help === true) return null
  const port = Number(values.port ?? 8080)
  if (!Number.isInteger(port) || port < 0 || port > 65_534) {
    throw new RouterError(
      'CONFIG_INVALID',
      `--port must be a whole number from 0 to 65534, not "${values.port ?? ''}".`,
    )
  }
  return { once: values.once ?? false, quick: values.quick ?? false, port }
}

async function open(policy: string, port: number): Promise<Stage> {
  const engines = await startEngines()
  let router: Router | null = null
  try {
    router = await startOn(port, policy, engines.urls)
    await readied(router.adminUrl)
    return { router, engines }
  } catch (fault) {
    await router?.stop()
    await engines.stop()
    throw fault
  }
}

/** Starts the router on a port, or on one that the system chooses where that is taken. */
async function startOn(port: number, policy: string, workerUrls: readonly string[]): Promise<Router> {
  const start = (on: number): Promise<Router> =>
    startRouter(checkConfig({ listen: { port: on }, profile: policy, modelPath: tokenizerPath, workerUrls }), {
      log: silentLog,
    })
  try {
    return await start(port)
  } catch (fault) {
    if (port === 0 || !(fault instanceof RouterError) || fault.code !== 'PORT_IN_USE') throw fault
    say(`  port ${port} or ${port + 1} is taken: using free ones`)
    return start(0)
  }
}

/** Until the router is ready and hears the KV events of every engine. */
async function readied(adminUrl: string): Promise<void> {
  const deadlineMs = performance.now() + readyTimeoutMs
  for (;;) {
    const answer = (await (await fetch(`${adminUrl}/admin/workers`)).json()) as {
      workers: { state: string; events: { state: string } }[]
    }
    const live = answer.workers.filter(({ state, events }) => state === 'healthy' && events.state === 'live')
    if (live.length === scenario.workers && (await fetch(`${adminUrl}/readyz`)).ok) return
    if (performance.now() > deadlineMs) {
      throw new Error(
        `Only ${live.length} of ${scenario.workers} engines were ready after ${readyTimeoutMs / 1000} s: ${JSON.stringify(answer.workers)}`,
      )
    }
    await sleep(20)
  }
}

async function measured(policy: string, { router }: Stage, quick: boolean, signal: AbortSignal): Promise<Outcome> {
  const play = { url: router.publicUrl, model: scenario.model, signal }
  await drive({ ...play, conversations: chatWorkload(warmUpWorkload) })
  const conversations = chatWorkload(quick ? quickWorkload : scenario.workload)
  const progress = new Progress(
    process.stdout,
    policy.padEnd(12),
    conversations.reduce((sum, { turns }) => sum + turns.length, 0),
  )
  const samples = await drive({ ...play, conversations, onSample: (done) => progress.show(done) })
  progress.end()
  return outcomeOf(policy, samples)
}

/** Prints the comparison; the answer is whether kv-aware won it. */
function showOutcomes(outcomes: readonly Outcome[]): boolean {
  say(`\n${tableOf(outcomes)}\n`)
  const [router, ...others] = outcomes
  if (router === undefined) return false
  const won = wins(router, others)
  const times = others.map(
    ({ policy, ttftMs }) => `${(ttftMs.mean / router.ttftMs.mean).toFixed(1)} times as soon as with ${policy}`,
  )
  say(
    won
      ? `${router.policy} won: the first token comes ${times.join(' and ')}.`
      : `${router.policy} did not win. The engines run in real time: on a busy machine, try again when it is quiet.`,
  )
  return won
}

function showServing({ publicUrl, adminUrl }: Router): void {
  const body = {
    model: scenario.model,
    stream: true,
    max_tokens: 32,
    messages: [{ role: 'user', content: 'What is a KV cache?' }],
  }
  say(`
Serving with ${policies.at(-1) ?? ''} until Ctrl-C:

  public   ${publicUrl}
  admin    ${adminUrl}   (/admin/workers, /admin/decisions, /metrics)

Try:

  curl -N ${publicUrl}/v1/chat/completions -H 'content-type: application/json' \\
    -d '${JSON.stringify(body)}'

  curl '${adminUrl}/admin/decisions?limit=1'
`)
}

/** The first SIGINT or SIGTERM ends in good order, a second one at once. */
function endSignal(): { readonly signal: AbortSignal; readonly promise: Promise<unknown> } {
  const controller = new AbortController()
  const promise = new Promise((resolve) => {
    for (const name of ['SIGINT', 'SIGTERM'] as const) {
      process.once(name, () => {
        controller.abort()
        resolve(name)
        process.once(name, () => process.exit(130))
      })
    }
  })
  return { signal: controller.signal, promise }
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (fault) {
  console.error(`quickstart: ${fault instanceof Error ? fault.message : String(fault)}`)
  process.exitCode = 1
}
