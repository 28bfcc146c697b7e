import type { ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { call } from '../engines/client.ts'
import type { Installation } from './install.ts'
import { freePorts, type Processes } from '../engines/processes.ts'

export const blockSize = 32
const longestModelLength = 8192
const startDeadlineMs = 600_000

/** One real vLLM on ports of its own, which it keeps when it is started again. */
export class Engine {
  readonly name: string
  readonly url: string
  /** Where it publishes its KV events. */
  readonly eventsEndpoint: string
  readonly #installation: Installation
  readonly #processes: Processes
  readonly #model: string
  readonly #ports: readonly [http: number, events: number, replay: number]
  readonly #log: string
  #child: ChildProcess | null = null

  static async at(name: string, model: string, installation: Installation, processes: Processes): Promise<Engine> {
    const [http, events, replay] = await freePorts(3)
    return new Engine(name, model, installation, processes, [http ?? 0, events ?? 0, replay ?? 0])
  }

  private constructor(
    name: string,
    model: string,
    installation: Installation,
    processes: Processes,
    ports: readonly [number, number, number],
  ) {
    this.name = name
    this.url = `http://127.0.0.1:${ports[0]}`
    this.eventsEndpoint = `tcp://127.0.0.1:${ports[1]}`
    this.#model = model
    this.#installation = installation
    this.#processes = processes
    this.#ports = ports
    this.#log = join(installation.folder, 'logs', `engine-${name}.txt`)
  }

  /** @param blocks KV blocks, where the engine shall have fewer than its memory allows */
  start(blocks: number | null = null): void {
    const [http, events, replay] = this.#ports
    // vLLM refuses a length that its blocks cannot hold; one block is never used.
    const modelLength = blocks === null ? longestModelLength : (blocks - 1) * blockSize
    const kvEvents = {
      enable_kv_cache_events: true,
      publisher: 'zmq',
      endpoint: `tcp://*:${events}`,
      replay_endpoint: `tcp://*:${replay}`,
      topic: `kv@127.0.0.1:${http}@model`,
    }
    this.#child = this.#processes.start(
      this.#installation.vllm,
      [
        ...['serve', this.#model, '--served-model-name', 'model', '--host', '127.0.0.1', '--port', String(http)],
        ...['--dtype', 'bfloat16', '--enforce-eager', '--max-model-len', String(modelLength), '--max-num-seqs', '8'],
        ...['--enable-prefix-caching', '--block-size', String(blockSize), '--enable-prompt-tokens-details'],
        ...['--kv-events-config', JSON.stringify(kvEvents)],
        ...(blocks === null ? [] : ['--num-gpu-blocks-override', String(blocks)]),
      ],
      {
        HF_HUB_OFFLINE: '1',
        VLLM_CPU_KVCACHE_SPACE: '1',
        VLLM_CPU_OMP_THREADS_BIND: 'nobind',
        VLLM_NO_USAGE_STATS: '1',
        VLLM_SERVER_DEV_MODE: '1',
        OMP_NUM_THREADS: '1',
      },
      this.#log,
    )
  }

  /** Answers its health check. Throws with the end of its log if it ends first, or does not in ten minutes. */
  async ready(): Promise<void> {
    const endMs = performance.now() + startDeadlineMs
    for (;;) {
      const answer = await call(`${this.url}/health`).catch(() => null)
      if (answer?.status === 200) return
      const ended = this.#child === null || this.#child.exitCode !== null || this.#child.signalCode !== null
      if (ended || performance.now() > endMs) {
        const log = readFileSync(this.#log, 'utf8').trim().split('\n').slice(-25).join('\n')
        throw new Error(
          `engine ${this.name} ${ended ? 'ended' : 'did not start in time'}; the end of ${this.#log}:\n${log}`,
        )
      }
      await new Promise((resolve) => setTimeout(resolve, 250))
    }
  }

  /** kill -9 of all its processes. */
  kill(): void {
    if (this.#child !== null) this.#processes.end(this.#child)
    this.#child = null
  }

  async metric(name: string): Promise<number> {
    const { text } = await call(`${this.url}/metrics`)
    const line = text.split('\n').find((row) => row.startsWith(`${name}{`) || row.startsWith(`${name} `))
    return Number(line?.slice(line.lastIndexOf(' ') + 1))
  }

  async kvBlocks(): Promise<number> {
    const { text } = await call(`${this.url}/metrics`)
    return Number(/vllm:cache_config_info\{.*num_gpu_blocks="(\d+)"/.exec(text)?.[1])
  }
}
