import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { createInterface } from 'node:readline'
import { freePort } from '../../test/support/redis-server.ts'

/** A Redis of the benchmark's own, which keeps nothing on disk. */
export class RedisProcess {
  readonly #port: number
  #child: ChildProcess | null = null

  private constructor(port: number) {
    this.#port = port
  }

  static async start(): Promise<RedisProcess> {
    const redis = new RedisProcess(await freePort())
    await redis.restart()
    return redis
  }

  get url(): string {
    return `redis://127.0.0.1:${this.#port}`
  }

  /** Starts it on its port, empty. */
  async restart(): Promise<void> {
    const settings = { bind: '127.0.0.1', port: String(this.#port), save: '', appendonly: 'no', dir: tmpdir() }
    const words = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value])
    const child = spawn('redis-server', words, { stdio: ['ignore', 'pipe', 'ignore'] })
    this.#child = child
    const endWithUs = (): void => void child.kill('SIGKILL')
    process.once('exit', endWithUs)
    child.once('exit', () => process.off('exit', endWithUs))
    const failed = once(child, 'error').then(([error]) => Promise.reject(error as Error))
    await Promise.race([isReady(child), failed])
  }

  freeze(): void {
    this.#child?.kill('SIGSTOP')
  }

  thaw(): void {
    this.#child?.kill('SIGCONT')
  }

  async kill(): Promise<void> {
    const child = this.#child
    this.#child = null
    if (child === null || child.exitCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  }
}

async function isReady({ stdout }: ChildProcess): Promise<void> {
  if (stdout === null) return
  for await (const line of createInterface({ input: stdout })) {
    if (!line.includes('Ready to accept connections')) continue
    stdout.resume()
    return
  }
  throw new Error('redis-server ended before it was ready')
}
