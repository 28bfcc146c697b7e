import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { dirname } from 'node:path'

/**
 * Child processes with all that they start themselves. None outlives the run, and what a run that was itself killed has
 * left behind, the next one ends.
 */
export class Processes {
  readonly #groups = new Map<number, string>()
  readonly #ledger: string

  /** @param ledger file that names the running groups */
  constructor(ledger: string) {
    this.#ledger = ledger
    this.#endLeftovers()
    process.on('exit', () => this.endAll())
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(130))
  }

  /** Output goes to the log file. */
  start(command: string, args: readonly string[], environment: Record<string, string>, log: string): ChildProcess {
    mkdirSync(dirname(log), { recursive: true })
    const output = openSync(log, 'w')
    const child = spawn(command, args, {
      detached: true,
      stdio: ['ignore', output, output],
      env: { ...process.env, ...environment },
    })
    closeSync(output)
    if (child.pid !== undefined) {
      this.#groups.set(child.pid, startOf(child.pid))
      this.#write()
    }
    return child
  }

  /** Ends the process and its children at once, as a crash or the kernel would. */
  end({ pid }: ChildProcess): void {
    if (pid === undefined || !this.#groups.delete(pid)) return
    killGroup(pid)
    this.#write()
  }

  endAll(): void {
    for (const group of this.#groups.keys()) killGroup(group)
    this.#groups.clear()
    rmSync(this.#ledger, { force: true })
  }

  #write(): void {
    mkdirSync(dirname(this.#ledger), { recursive: true })
    writeFileSync(this.#ledger, JSON.stringify([...this.#groups]))
  }

  #endLeftovers(): void {
    let left: [number, string][] = []
    try {
      left = JSON.parse(readFileSync(this.#ledger, 'utf8')) as [number, string][]
    } catch {
      return
    }
    // A process id may have been given to somebody else since: the start time tells.
    for (const [group, started] of left) if (started !== '' && startOf(group) === started) killGroup(group)
    rmSync(this.#ledger, { force: true })
  }
}

/** When a process was started, in clock ticks since boot; empty if there is none. */
function startOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The second field is a name in parentheses that may hold blanks; the start time is the 22nd.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? ''
  } catch {
    return ''
  }
}

function killGroup(group: number): void {
  try {
    process.kill(-group, 'SIGKILL')
  } catch {
    // Gone already.
  }
}

/** Ports that are free now. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve, reject) => {
          const server = createServer().on('error', reject)
          server.listen(0, '127.0.0.1', () => resolve(server))
        }),
    ),
  )
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}
