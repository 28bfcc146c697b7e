import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export interface PythonPackages {
  /** Where the virtual environment lies, or will. */
  readonly folder: string
  /** A file that names every package with its version. */
  readonly packages: string
  /** What is installed, for people. */
  readonly title: string
  /** Before anything is written into the folder. Throws where the machine does not suffice. */
  readonly prepare?: () => void
  /** What is left to do once the packages are there. */
  readonly finish?: (python: string) => void
  readonly say: (line: string) => void
}

export const root = fileURLToPath(new URL('../..', import.meta.url))
const uvVersion = '0.13.9'

/**
 * Installs what is missing, without dependencies; a second call finds everything there. Returns the folder of the
 * environment's programs. Throws with what to do about it.
 */
export function installPython({ folder, packages, title, prepare, finish, say }: PythonPackages): string {
  const venv = join(folder, 'venv')
  const programs = join(venv, 'bin')
  const python = join(programs, 'python')
  // The stamp is the list itself, written last: another list, or an installation that broke off, starts afresh.
  const stamp = join(folder, 'installed.txt')
  const wanted = readFileSync(packages, 'utf8')
  if (existsSync(stamp) && existsSync(python) && readFileSync(stamp, 'utf8') === wanted) {
    say(`${title} is there already`)
    return programs
  }
  mkdirSync(folder, { recursive: true })
  prepare?.()
  rmSync(stamp, { force: true })
  rmSync(venv, { recursive: true, force: true })
  const source = findPython()
  say(`installing ${title} with ${source}`)
  run([source, '-m', 'venv', venv], 'make a virtual environment')
  run([python, '-m', 'pip', 'install', '--quiet', `uv==${uvVersion}`], 'install uv')
  const uv = join(programs, 'uv')
  run([uv, 'pip', 'install', '--python', python, '--no-deps', '-r', packages], `install the packages of ${packages}`)
  finish?.(python)
  writeFileSync(stamp, wanted)
  return programs
}

/** The lists of packages hold for 3.11; PYTHON names another interpreter. */
function findPython(): string {
  const places = [process.env['PYTHON'], 'python3.11', 'python3'].filter((place) => place !== undefined)
  for (const place of places) {
    const { status, stdout } = spawnSync(place, ['-c', 'import sys; print("%d.%d" % sys.version_info[:2])'], {
      encoding: 'utf8',
    })
    if (status === 0 && stdout.trim() === '3.11') return place
  }
  throw new Error(`no Python 3.11 among ${places.join(', ')}; set PYTHON to one`)
}

/** Runs a program to its end and returns what it prints. Throws with the end of its output where it fails. */
export function run([program = '', ...args]: readonly string[], purpose: string): string {
  const { status, error, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 })
  if (status === 0) return stdout
  const told = error?.message ?? `${stdout}\n${stderr}`.trim().split('\n').slice(-15).join('\n')
  throw new Error(`Cannot ${purpose}: ${told}`)
}
