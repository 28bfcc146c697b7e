import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { RouterError } from '../../errors.ts'
import { engineDefaults } from '../../simulator/engine-options.ts'
import { engineOf } from '../calibration.ts'
import type { ReplayJob } from '../job.ts'
import { Child, type Environment } from './child.ts'

export interface StageOptions {
  readonly job: Pick<ReplayJob, 'policy' | 'workers' | 'calibration' | 'capacityBlocks' | 'timeoutMs' | 'seed'>
  readonly speed: number
  /** Files of plugins, as the router is to load them. */
  readonly plugins: readonly string[]
  readonly environment: Environment
}

export const stageModel = 'simulated'

const tokenizer = fileURLToPath(new URL('../../../config/tokenizers/demo', import.meta.url))
const readyMs = 30_000
const lookAgainMs = 20
const countersMs = 10_000
/** The router's own defaults, which go by as fast as everything else. */
const loadIntervalMs = 500
const queueTimeoutMs = 2_000
const leastLoadIntervalMs = 20
const mostTimeoutMs = 3_600_000

/** Simulated engines and a router before them, with empty caches; each of the two a process of its own. */
export class Stage {
  readonly url: string
  /** The engines, by the names that the router has for them. */
  readonly workers: readonly string[]
  readonly #children: readonly Child[]
  readonly #folder: string

  private constructor(url: string, workers: readonly string[], children: readonly Child[], folder: string) {
    this.url = url
    this.workers = workers
    this.#children = children
    this.#folder = folder
  }

  /** Throws RouterError CONFIG_INVALID where the router refuses the policy, NOT_READY where something does not start. */
  static async open(options: StageOptions): Promise<Stage> {
    const folder = await mkdtemp(join(tmpdir(), 'warmroute-replay-'))
    const children: Child[] = []
    try {
      const engines = await startEngines(options)
      children.push(engines.child)
      const router = await startRouter(options, engines.found, join(folder, 'router.yaml'))
      children.unshift(router.child)
      await readied(router.found.adminUrl, options.job.workers)
      return new Stage(router.found.url, engines.found, children, folder)
    } catch (fault) {
      await closeAll(children, folder)
      throw fault
    }
  }

  /** How long each engine has computed, in its own time; none where they cannot be asked any more. */
  async busyMs(): Promise<number[]> {
    const ask = async (url: string): Promise<number> => {
      const answer = await fetch(`${url}/simulator/counters`, { signal: AbortSignal.timeout(countersMs) })
      return ((await answer.json()) as { busyMs: number }).busyMs
    }
    return Promise.all(this.workers.map(ask)).catch(() => [])
  }

  close(): Promise<void> {
    return closeAll(this.#children, this.#folder)
  }
}

async function closeAll(children: readonly Child[], folder: string): Promise<void> {
  for (const child of children) await child.stop()
  await rm(folder, { recursive: true, force: true })
}

function startEngines({ job, speed, environment }: StageOptions) {
  const figures = { ...engineDefaults, ...engineOf(job.calibration, job.capacityBlocks) }
  const flags: Readonly<Record<string, string | number>> = {
    ...{ workers: job.workers, model: stageModel, 'model-path': tokenizer },
    ...{ 'http-port': 0, 'events-port': 0, 'replay-port': 0 },
    ...{ 'block-size': figures.blockSize, 'capacity-blocks': figures.capacityBlocks },
    ...{ 'max-model-len': figures.maxModelLength, 'max-num-seqs': figures.maxRunningRequests },
    ...{ 'max-num-batched-tokens': figures.maxBatchedTokens, 'decode-ms': figures.decodeMsPerRequest },
    ...{ 'prefill-rate': Math.max(1, Math.round(figures.prefillTokensPerSecond)), 'step-ms': figures.stepBaseMs },
    ...{ 'time-scale': speed, seed: job.seed },
  }
  const argv = Object.entries(flags).map(([name, value]) => `--${name}=${value}`)
  return Child.start(['simulate', ...argv], environment, (text) => {
    const urls = [...text.matchAll(/^(http:\S+).*\n/gm)].map(([, url = '']) => url)
    return urls.length === job.workers ? urls : null
  })
}

async function startRouter(options: StageOptions, workers: readonly string[], file: string) {
  // JSON is YAML.
  await writeFile(file, JSON.stringify(configOf(options, workers)))
  return Child.start(['serve', '--config', file], options.environment, (text) => {
    const [, url, adminUrl] = /serving on (http:\S+), admin on (http:\S+)/.exec(text) ?? []
    return url === undefined || adminUrl === undefined ? null : { url, adminUrl }
  })
}

function configOf({ job, speed, plugins }: StageOptions, workers: readonly string[]): object {
  const { policy, timeoutMs = 0 } = job
  return {
    ...{ listen: { port: 0 }, admin: { port: 0 }, log: { level: 'error' }, plugins },
    // A busy machine may hold up the engines, which must not pass for engines that hang.
    health: { timeoutMs: 5_000, failures: 3 },
    load: { intervalMs: Math.max(leastLoadIntervalMs, Math.round(loadIntervalMs / speed)) },
    admission: { queue: { timeoutMs: Math.max(1, Math.round(queueTimeoutMs / speed)) } },
    // The client is who gives up.
    timeouts: { firstTokenMs: Math.min(mostTimeoutMs, 60_000 + Math.round((2 * timeoutMs) / speed)) },
    pools: [{ model: stageModel, tokenizer, profile: policy, workers: workers.map((url) => ({ url })) }],
  }
}

/** Until the router is ready and hears the KV events of every engine. */
async function readied(adminUrl: string, workers: number): Promise<void> {
  const deadlineMs = performance.now() + readyMs
  for (;;) {
    const answer = await fetch(`${adminUrl}/admin/workers`)
    const views = ((await answer.json()) as { workers: readonly WorkerView[] }).workers
    const live = views.filter(({ state, events }) => state === 'healthy' && events.state === 'live')
    if (live.length === workers && (await fetch(`${adminUrl}/readyz`)).ok) return
    if (performance.now() > deadlineMs)
      throw new RouterError(
        'NOT_READY',
        `Only ${live.length} of ${workers} engines were ready after ${readyMs / 1000} s`,
      )
    await sleep(lookAgainMs)
  }
}

interface WorkerView {
  readonly state: string
  readonly events: { readonly state: string }
}
