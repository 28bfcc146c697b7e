import { spawn, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { RouterError } from '../../errors.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/** The package's own program; from `dist` it is as far away as from `src`. */
const program = fileURLToPath(new URL('../../../bin/warmroute.js', import.meta.url))
/** A child ends with this process, however that ends: the channel between them breaks. Its threads run this, too, and have none. */
const onStart = `if (process.channel) {
  process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'))
  process.channel.unref()
}`
const leash = `data:text/javascript,${encodeURIComponent(onStart)}`
const startMs = 30_000
const endMs = 10_000
/** Of what a child says, the latest part. */
const mostTextLetters = 65_536

/** A `warmroute` command as a process of its own, out of reach of the terminal's Ctrl-C. */
export class Child {
  readonly #process: ChildProcess
  readonly #name: string
  readonly #exited: Promise<void>
  readonly #onText: (() => void)[] = []
  #text = ''
  #hasExited = false

  private constructor(argv: readonly string[], environment: Environment) {
    this.#name = `warmroute ${argv[0] ?? ''}`
    this.#process = spawn(process.execPath, ['--import', leash, program, ...argv], {
      ...{ detached: true, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] },
      env: ownSettingsLeftOut(environment),
    })
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#text = (this.#text + text).slice(-mostTextLetters)
        for (const told of this.#onText) told()
      })
    }
    this.#exited = new Promise((resolve) => {
      const over = (): void => {
        this.#hasExited = true
        for (const told of this.#onText) told()
        resolve()
      }
      this.#process.once('close', over)
      this.#process.once('error', (error) => {
        this.#text += error.message
        over()
      })
    })
  }

  /**
   * Starts the command and waits until what it prints has what is looked for. Throws RouterError CONFIG_INVALID with its own words where
   * it ends instead, NOT_READY where it takes too long.
   */
  static async start<Found>(
    argv: readonly string[],
    environment: Environment,
    find: (text: string) => Found | null,
  ): Promise<{ readonly child: Child; readonly found: Found }> {
    const child = new Child(argv, environment)
    try {
      return { child, found: await child.#until(find) }
    } catch (fault) {
      await child.stop()
      throw fault
    }
  }

  /** As SIGTERM ends it, or after a while without mercy. */
  async stop(): Promise<void> {
    this.#process.kill('SIGTERM')
    const late = setTimeout(() => this.#process.kill('SIGKILL'), endMs)
    await this.#exited
    clearTimeout(late)
  }

  #until<Found>(find: (text: string) => Found | null): Promise<Found> {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => {
        reject(new RouterError('NOT_READY', `${this.#name} did not start within ${startMs / 1000} s: ${this.#text}`))
      }, startMs)
      const look = (): void => {
        const found = find(this.#text)
        if (found !== null) resolve(found)
        else if (this.#hasExited) reject(new RouterError('CONFIG_INVALID', this.#text.trim() || `${this.#name} ended`))
        else return
        clearTimeout(late)
        this.#onText.length = 0
      }
      this.#onText.push(look)
      look()
    })
  }
}

/** What the user set for a router of his own is not for this one. */
function ownSettingsLeftOut(environment: Environment): Record<string, string> {
  const entries = Object.entries(environment).filter(([name]) => !name.startsWith('WARMROUTE_'))
  return Object.fromEntries(entries.flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])))
}
