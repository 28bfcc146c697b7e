import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { installPackages, type Machine } from './machine.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = join(root, '.cache', 'python')
const requirements = join(root, 'examples', 'event-bridge', 'requirements.txt')

/** The Python that runs the examples, with their packages, once `providePython` has been there. */
export const examplesPython = join(folder, 'bin', 'python')

export interface PythonPlace {
  /** Where the virtual environment lies, or will. */
  readonly folder: string
  /** A file that names its packages. */
  readonly requirements: string
}

/** The tests run the Python examples: an environment for them is found, or made, or one clear error is returned. */
export function providePython(machine: Machine, place: PythonPlace = { folder, requirements }): string | null {
  const python = join(place.folder, 'bin', 'python')
  // The stamp is the list itself, written last: another list, or an installation that broke off, starts afresh.
  const stamp = join(place.folder, 'installed.txt')
  const list = readFileSync(place.requirements, 'utf8')
  if (existsSync(stamp) && machine.has(python) && readFileSync(stamp, 'utf8') === list) return null
  const missing = makeEnvironment(machine, place.folder)
  if (missing !== null) return missing
  if (
    !machine.run(python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-r', place.requirements])
  )
    return `The tests run Python examples, and pip cannot install the packages of ${place.requirements}, see above.`
  mkdirSync(place.folder, { recursive: true })
  writeFileSync(stamp, list)
  return null
}

function makeEnvironment(machine: Machine, at: string): string | null {
  rmSync(at, { recursive: true, force: true })
  const make = (): boolean => machine.has('python3') && machine.run('python3', ['-m', 'venv', at])
  if (make()) return null
  const wanted = 'The tests run Python examples: they need python3 (3.10 or later) with its module venv'
  // Debian keeps the module in a package of its own.
  const missing = installPackages(machine, ['python3', 'python3-venv'], wanted)
  if (missing !== null || make()) return missing
  return `${wanted}; apt-get installed both, but "python3 -m venv" fails, see above.`
}
