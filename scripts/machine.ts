import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/** What this machine offers for an installation. */
export interface Machine {
  /** Whether a program is on the PATH, or at a path. */
  readonly has: (program: string) => boolean
  readonly isRoot: boolean
  /** Runs a command to its end; whether it succeeded. */
  readonly run: (program: string, args: readonly string[]) => boolean
}

export function thisMachine(): Machine {
  const folders = (process.env['PATH'] ?? '').split(delimiter)
  return {
    has: (program) =>
      program.includes('/') ? isExecutable(program) : folders.some((folder) => isExecutable(join(folder, program))),
    isRoot: process.getuid?.() === 0,
    run: (program, args) => spawnSync(program, args, { stdio: 'inherit' }).status === 0,
  }
}

/** Installs packages of the system; else says, after `wanted`, why that cannot be. */
export function installPackages(
  { has, isRoot, run }: Machine,
  packages: readonly string[],
  wanted: string,
): string | null {
  if (!has('apt-get')) return `${wanted}, and this machine has no apt-get: install it by hand.`
  const prefix = isRoot ? [] : ['sudo', '-n']
  const names = packages.join(' ')
  if (!isRoot && !(has('sudo') && run('sudo', ['-n', 'true']))) {
    return `${wanted}. Installing it takes root, or sudo without a password: "sudo apt-get install ${names}".`
  }
  const aptGet = (...args: string[]): boolean => {
    const [program = '', ...rest] = [...prefix, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', ...args]
    return run(program, rest)
  }
  const install = (): boolean => aptGet('install', '-y', '--no-install-recommends', ...packages)
  // A fresh machine has no lists of packages yet, or old ones that name versions that are gone.
  const installed = install() || (aptGet('update') && install())
  return installed ? null : `${wanted}; "apt-get install ${names}" failed, see above.`
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
