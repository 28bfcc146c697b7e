import { startRouter } from '../../src/main.ts'
import { sglang } from '../../src/simulator/flavours/sglang.ts'
import { trtllm } from '../../src/simulator/flavours/trtllm.ts'
import { vllm } from '../../src/simulator/flavours/vllm.ts'
import { SharedStore } from '../../src/simulator/shared-store.ts'
import { startSimulators, type Simulators, type SimulatorsOptions } from '../../src/simulator/simulate.ts'
import { loadTokenizer } from '../../src/tokenize/tokenizer.ts'
import { collectingLog, configOf, demoTokenizer, Fleet, model, type LogLine } from './fleet.ts'
import { seededRandom } from './random.ts'
import { until } from './until.ts'

export const blockSize = 16
/** Model of the workers that share a store: what a pool's store holds, each of its workers can load. */
export const storedModel = 'stored'
/** Small enough to be overrun all the time. */
const engine = {
  blockSize,
  capacityBlocks: 192,
  maxModelLength: 1536,
  stepBaseMs: 0.2,
  decodeMsPerRequest: 0.01,
  prefillTokensPerSecond: 2_000_000,
  hostLoadMsPerBlock: 0.001,
}

/** Two engines of each kind, two of another model that share a store, and one that tells nothing of its cache. */
const kinds = (): readonly (Partial<SimulatorsOptions> & { readonly config?: object })[] => [
  { workers: 2, engine: { ...engine, hostBlocks: 256 }, worker: { flavour: vllm } },
  {
    workers: 2,
    engine: { ...engine, hostBlocks: 256, hostWrites: 'evicted' },
    worker: { flavour: sglang({ cacheReport: true }) },
  },
  {
    workers: 2,
    engine: { ...engine, hostBlocks: 256, hostWrites: 'evicted' },
    worker: { flavour: trtllm({ slidingWindow: 512, partialBlocks: true }) },
  },
  {
    workers: 2,
    model: storedModel,
    engine: {
      ...engine,
      hostBlocks: 256,
      sharedStore: new SharedStore({ capacityChunks: 60, chunkTokens: 4 * blockSize }),
      sharedLoadMsPerBlock: 0.001,
    },
    worker: { flavour: vllm },
  },
  { workers: 1, engine, eventsPort: null, worker: { flavour: vllm }, config: { events: false } },
]

/** A router before two simulated engines of each kind, and one without events; to be stopped by its user. */
export async function startMixedFleet(): Promise<Fleet> {
  const tokenizer = await loadTokenizer({ path: demoTokenizer })
  const groups: Simulators[] = []
  const pools = [model, storedModel].map((name) => ({
    model: name,
    tokenizer: demoTokenizer,
    workers: [] as object[],
  }))
  for (const { config, ...kind } of kinds()) {
    const group = await startSimulators({ workers: 1, model, tokenizer, ...kind })
    groups.push(group)
    const pool = pools.find((candidate) => candidate.model === (kind.model ?? model))
    pool?.workers.push(...group.urls.map((url) => ({ url, ...config })))
  }
  const simulators: Simulators = {
    urls: groups.flatMap(({ urls }) => urls),
    workers: groups.flatMap((group) => group.workers),
    stop: async () => {
      await Promise.all(groups.map((group) => group.stop()))
    },
  }
  const log: LogLine[] = []
  // However much is lost, what is told later counts: the map is to be compared with what the engines hold.
  const config = configOf({ config: { pools, eventLosses: { gaps: 1000 } } }, [])
  const router = await startRouter(config, { log: collectingLog(log), random: seededRandom(7) })
  const fleet = new Fleet(router, simulators, log)
  await until(async () => (await fleet.workers()).every(({ state }) => state === 'healthy'), 'all workers are healthy')
  await fleet.settled()
  return fleet
}

/** Conversations that share beginnings, grow, end, and come back after others have pushed them out. */
export class Conversations {
  readonly prompts: number[][] = []
  readonly #random: () => number

  constructor(random: () => number) {
    this.#random = random
    const systems = Array.from({ length: 4 }, () => this.#tokens(100 + this.#below(200)))
    for (let i = 0; i < 48; i++) this.prompts.push([...(systems[i % systems.length] ?? []), ...this.#tokens(20)])
  }

  /** One of them with its next turn: its place and its prompt. */
  next(): readonly [at: number, prompt: readonly number[]] {
    const at = this.#below(this.prompts.length)
    const prompt = this.prompts[at] ?? []
    const grown = [...prompt, ...this.#tokens(1 + this.#below(120))]
    if (grown.length < 1200) this.prompts[at] = grown
    else this.prompts[at] = grown.slice(0, 150)
    return [at, this.prompts[at] ?? []]
  }

  #tokens(count: number): number[] {
    return Array.from({ length: count }, () => 300 + this.#below(500))
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit)
  }
}
