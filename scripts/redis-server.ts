import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/** What this machine offers for an installation. */
export interface Machine {
  /** Whether a program is on the PATH. */
  readonly has: (program: string) => boolean
  readonly isRoot: boolean
  /** Runs a command to its end; whether it succeeded. */
  readonly run: (program: string, args: readonly string[]) => boolean
}

/** The tests run against a real redis-server: found, or installed, or one clear error is returned. */
export function provideRedisServer({ has, isRoot, run }: Machine): string | null {
  if (has('redis-server')) return null
  const wanted = 'The tests need redis-server on the PATH (7.0 or later)'
  if (!has('apt-get')) return `${wanted}, and this machine has no apt-get: install it by hand.`
  const prefix = isRoot ? [] : ['sudo', '-n']
  if (!isRoot && !(has('sudo') && run('sudo', ['-n', 'true']))) {
    return `${wanted}. Installing it takes root, or sudo without a password: "sudo apt-get install redis-server".`
  }
  const aptGet = (...args: string[]): boolean => {
    const [program = '', ...rest] = [...prefix, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', ...args]
    return run(program, rest)
  }
  const install = (): boolean => aptGet('install', '-y', '--no-install-recommends', 'redis-server')
  // A fresh machine has no lists of packages yet, or old ones that name versions that are gone.
  const installed = install() || (aptGet('update') && install())
  if (!installed) return `${wanted}; "apt-get install redis-server" failed, see above.`
  return has('redis-server') ? null : `${wanted}; apt-get installed the package, but the program is not there.`
}

export function thisMachine(): Machine {
  const folders = (process.env['PATH'] ?? '').split(delimiter)
  return {
    has: (program) => folders.some((folder) => isExecutable(join(folder, program))),
    isRoot: process.getuid?.() === 0,
    run: (program, args) => spawnSync(program, args, { stdio: 'inherit' }).status === 0,
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
