import { Agent, request } from 'node:http'
import type { ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { eventually } from '../engines/client.ts'
import { freePorts, type Processes } from '../engines/processes.ts'

const startDeadlineMs = 60_000
const log = (folder: string, name: string): string => join(folder, 'logs', `select-service-${name}.txt`)

/** What the service answers of one worker and one prompt. */
export interface OverlapOfWorker {
  readonly worker_id: number
  readonly device_blocks: number
  readonly host_pinned_extension_blocks: number
  readonly disk_extension_blocks: number
}

export interface LoadOfWorker {
  readonly worker_id: number
  readonly potential_prefill_tokens: number
  readonly potential_decode_blocks: number
  readonly active_requests: number
}

export interface SelectServiceOptions {
  /** Python's folder of programs. */
  readonly programs: string
  /** Where logs go. */
  readonly folder: string
  readonly name: string
  /** Knobs that the service reads. */
  readonly environment: Readonly<Record<string, string>>
  readonly processes: Processes
}

/** NVIDIA Dynamo's select service: its router alone, which chooses workers and books requests but forwards none. */
export class SelectService {
  readonly #options: SelectServiceOptions
  readonly #agent = new Agent({ keepAlive: true })
  readonly #port: number
  #process: ChildProcess | null = null

  static async start(options: SelectServiceOptions): Promise<SelectService> {
    const [port = 0] = await freePorts(1)
    const service = new SelectService(options, port)
    await service.#start()
    return service
  }

  private constructor(options: SelectServiceOptions, port: number) {
    this.#options = options
    this.#port = port
  }

  async #start(): Promise<void> {
    const { programs, folder, name, environment, processes } = this.#options
    this.#process = processes.start(
      join(programs, 'python'),
      ['-m', 'dynamo.select_service', '--port', String(this.#port), '--threads', '2'],
      { NO_COLOR: '1', ...environment },
      log(folder, name),
    )
    const started = await eventually(async () => {
      await this.#call('GET', '/health')
      return true
    }, startDeadlineMs)
    if (started === null) {
      const told = readFileSync(log(folder, name), 'utf8').slice(-1500)
      throw new Error(`the select service did not start in time; its log ends with:\n${told}`)
    }
  }

  async addWorker(id: number, blockSize: number, eventsEndpoint: string): Promise<void> {
    await this.#call('POST', '/workers', {
      worker_id: id,
      endpoint: `http://worker-${id}`,
      block_size: blockSize,
      kv_events_endpoint: eventsEndpoint,
    })
  }

  /** Chooses and books; answers the worker. */
  async reserve(id: string, tokens: Uint32Array): Promise<number> {
    const body = { selection_id: id, token_ids: [...tokens] }
    const { worker_id } = (await this.#call('POST', '/select_and_reserve', body)) as { worker_id: number }
    return worker_id
  }

  /** Chooses and books nothing. */
  async select(tokens: Uint32Array): Promise<number> {
    const { worker_id } = (await this.#call('POST', '/select', { token_ids: [...tokens] })) as { worker_id: number }
    return worker_id
  }

  async prefillComplete(id: string): Promise<void> {
    await this.#call('POST', `/reservations/${id}/prefill_complete`, {})
  }

  async free(id: string): Promise<void> {
    await this.#call('DELETE', `/reservations/${id}`)
  }

  async overlaps(tokens: Uint32Array): Promise<readonly OverlapOfWorker[]> {
    const answer = await this.#call('POST', '/overlap_scores', { token_ids: [...tokens] })
    return (answer as { workers: OverlapOfWorker[] }).workers
  }

  async loads(): Promise<readonly LoadOfWorker[]> {
    const [model] = (await this.#call('GET', '/loads')) as [{ loads: LoadOfWorker[] }]
    return model.loads
  }

  /** The cost of each choice that it logged, by the request's id. */
  costs(): Map<string, number> {
    const { folder, name } = this.#options
    const text = readFileSync(log(folder, name), 'utf8')
    // The log is coloured even where it goes to a file.
    const plain = text.replaceAll(/\u001b\[\d+m/g, '')
    const lines = plain.matchAll(/Selected worker .*?request_id="([^"]+)".*? logit=(\S+)/g)
    return new Map([...lines].map(([, id, cost]) => [id as string, Number(cost)]))
  }

  stop(): void {
    if (this.#process !== null) this.#options.processes.end(this.#process)
    this.#agent.destroy()
  }

  #call(method: string, path: string, body?: unknown): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const text = body === undefined ? undefined : JSON.stringify(body)
      const headers =
        text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }
      const outgoing = request(
        { host: '127.0.0.1', port: this.#port, method, path, headers, agent: this.#agent, timeout: 30_000 },
        (answer) => {
          let told = ''
          answer.setEncoding('utf8')
          answer.on('data', (piece: string) => {
            told += piece
          })
          answer.on('error', reject)
          answer.on('end', () => {
            const { statusCode = 0 } = answer
            if (statusCode >= 200 && statusCode < 300) resolve(JSON.parse(told))
            else reject(new Error(`${method} ${path} answered ${statusCode}: ${told.slice(0, 500)}`))
          })
        },
      )
      outgoing.on('timeout', () => outgoing.destroy(new Error(`${method} ${path} took too long`)))
      outgoing.on('error', reject)
      outgoing.end(text)
    })
  }
}
