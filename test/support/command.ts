import { spawn, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { TestContext } from 'node:test'
import { until } from './until.ts'

export const warmrouteBin = fileURLToPath(new URL('../../bin/warmroute.js', import.meta.url))

export interface RunningCommand {
  readonly child: ChildProcess
  readonly out: () => string
  readonly error: () => string
  /** Exit code, or null where a signal ended it. */
  readonly exited: Promise<number | null>
}

/** Runs the command line as a process of its own; killed at the end of the test if it is still there. */
export function command(
  t: TestContext,
  argv: readonly string[],
  options: { bin?: string; cwd?: string; environment?: Record<string, string> } = {},
): RunningCommand {
  const child = spawn(process.execPath, [options.bin ?? warmrouteBin, ...argv], {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { ...process.env, ...options.environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  let error = ''
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (error += chunk.toString()))
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve))
  t.after(() => child.kill('SIGKILL'))
  return { child, out: () => out, error: () => error, exited }
}

/** The URLs that `serve` prints once it serves. */
export async function servedUrls({
  child,
  error,
  out,
}: RunningCommand): Promise<{ publicUrl: string; adminUrl: string }> {
  const pattern = /serving on (http:\S+), admin on (http:\S+)/
  await until(() => pattern.test(error()) || child.exitCode !== null, 'the router serves', 15_000)
  const [, publicUrl, adminUrl] = pattern.exec(error()) ?? []
  if (publicUrl === undefined || adminUrl === undefined) throw new Error(`serve ended: ${error()}${out()}`)
  return { publicUrl, adminUrl }
}
