import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = fileURLToPath(new URL('.', import.meta.url))
export const root = join(here, '..', '..')
/** Everything that is installed or written lies here. */
export const folder = join(root, '.cache', 'clients')

const uvVersion = '0.13.9'
const pythonVersion = '3.12'
const oldNode = { major: 20, version: '20.20.2' }

export type PythonTool = 'openai' | 'aiperf' | 'inference-perf'

/** Folder of a tool's commands, in a virtual environment of its own. A second call finds everything there. */
export function installPython(tool: PythonTool): string {
  const venv = join(folder, tool)
  const list = join(here, 'requirements', `${tool}.txt`)
  // The stamp is the list itself, written last: another list, or an installation that broke off, starts afresh.
  const stamp = join(folder, `${tool}.txt`)
  const wanted = readFileSync(list, 'utf8')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return join(venv, 'bin')
  rmSync(stamp, { force: true })
  rmSync(venv, { recursive: true, force: true })
  const source = findPython()
  console.log(`installing the packages of ${tool} with ${source}`)
  run([source, '-m', 'venv', venv], 'make a virtual environment')
  run(
    [installUv(source), 'pip', 'install', '--python', join(venv, 'bin', 'python'), '--no-deps', '-r', list],
    `install ${tool}`,
  )
  writeFileSync(stamp, wanted)
  return join(venv, 'bin')
}

/** A Node of the oldest version that openai 6 is used with: the one on the PATH, else one of the registry. */
export function installOldNode(): string {
  const places = (process.env['PATH'] ?? '').split(delimiter).map((directory) => join(directory, 'node'))
  const found = places.find((place) => existsSync(place) && majorOf(place) === oldNode.major)
  if (found !== undefined) return found
  const place = join(folder, 'node', 'node_modules', `node-${process.platform}-${process.arch}`, 'bin', 'node')
  if (existsSync(place)) return place
  console.log(`installing Node ${oldNode.version}`)
  const name = `node-${process.platform}-${process.arch}@${oldNode.version}`
  run(['npm', 'install', '--no-save', '--prefix', join(folder, 'node'), name], `install Node ${oldNode.version}`)
  return place
}

function majorOf(node: string): number {
  const { stdout } = spawnSync(node, ['--version'], { encoding: 'utf8' })
  return Number(/^v(\d+)/.exec(stdout)?.[1])
}

/** PYTHON names another interpreter than those that are looked for. */
function findPython(): string {
  const pyenv = spawnSync('pyenv', ['prefix', pythonVersion], { encoding: 'utf8' })
  const places = [
    process.env['PYTHON'],
    `python${pythonVersion}`,
    'python3',
    pyenv.status === 0 ? join(pyenv.stdout.trim(), 'bin', 'python') : undefined,
  ].filter((place) => place !== undefined)
  for (const place of places) {
    const { status, stdout } = spawnSync(place, ['-c', 'import sys; print("%d.%d" % sys.version_info[:2])'], {
      encoding: 'utf8',
    })
    if (status === 0 && stdout.trim() === pythonVersion) return place
  }
  throw new Error(`no Python ${pythonVersion} among ${places.join(', ')}; set PYTHON to one`)
}

function installUv(source: string): string {
  const uv = join(folder, 'tools', 'bin', 'uv')
  if (existsSync(uv)) return uv
  mkdirSync(folder, { recursive: true })
  run([source, '-m', 'venv', join(folder, 'tools')], 'make a virtual environment')
  run([join(folder, 'tools', 'bin', 'python'), '-m', 'pip', 'install', '--quiet', `uv==${uvVersion}`], 'install uv')
  return uv
}

function run([program = '', ...args]: readonly string[], purpose: string): void {
  const { status, error, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 })
  if (status === 0) return
  const told = error?.message ?? `${stdout}\n${stderr}`.trim().split('\n').slice(-15).join('\n')
  throw new Error(`Cannot ${purpose}: ${told}`)
}
