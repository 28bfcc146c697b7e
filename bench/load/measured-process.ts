import { spawn, type ChildProcess } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export interface MeasuredProcess {
  readonly process: ChildProcess
  readonly url: string
}

/** Starts a script of this repository that prints its URL as its first line. */
export async function startMeasured(args: string[]): Promise<MeasuredProcess> {
  const root = fileURLToPath(new URL('../..', import.meta.url))
  const child = spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] })
  for await (const line of createInterface({ input: child.stdout })) {
    child.stdout.resume()
    return { process: child, url: line }
  }
  throw new Error(`${args[0] ?? ''} ended without a URL`)
}

/** Time on a processor over all threads of a process, from the scheduler's own accounts. */
export function cpuNanoseconds({ process: { pid } }: MeasuredProcess): number {
  return readdirSync(`/proc/${pid}/task`).reduce(
    (sum, task) => sum + Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]),
    0,
  )
}
