import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { TestContext } from 'node:test'
import { examplesPython } from '../../scripts/python.ts'

export const bridgeFolder = fileURLToPath(new URL('../../examples/event-bridge', import.meta.url))

export interface RunningPython {
  /** Sends a line to its standard input. */
  readonly write: (line: string) => void
  readonly out: () => string
  readonly error: () => string
  readonly kill: () => Promise<void>
  /** Exit code, or null where a signal ended it. */
  readonly exited: Promise<number | null>
}

/** Runs Python in the folder of the bridges; killed at the end of the test if it is still there. */
export function python(t: TestContext, args: readonly string[]): RunningPython {
  if (!existsSync(examplesPython))
    throw new Error(`The Python examples have no environment at ${examplesPython}; "npm run verify" makes it.`)
  const env = { ...process.env, PYTHONDONTWRITEBYTECODE: '1' }
  const child = spawn(examplesPython, args, { cwd: bridgeFolder, env, stdio: ['pipe', 'pipe', 'pipe'] })
  let out = ''
  let error = ''
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (error += chunk.toString()))
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve))
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL')
    await exited
  }
  t.after(kill)
  return { write: (line) => child.stdin.write(`${line}\n`), out: () => out, error: () => error, kill, exited }
}
