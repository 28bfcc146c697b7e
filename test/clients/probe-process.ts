import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import type { ProbeRequest } from './case.ts'
import { folder } from './install.ts'
import type { Outcome } from './outcome.ts'

export interface Asked {
  readonly baseURL: string
  readonly requests: readonly ProbeRequest[]
}

const here = fileURLToPath(new URL('.', import.meta.url))
const deadlineMs = 60_000

/** Gives a probe in another process its cases, and reads what it made of them. */
export async function probeProcess(command: string, script: string, asked: Asked): Promise<readonly Outcome[]> {
  const child = spawn(command, [script], { stdio: ['pipe', 'pipe', 'inherit'], timeout: deadlineMs })
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stdin.end(JSON.stringify(asked))
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0) throw new Error(`${script} ended with ${code}`)
  return JSON.parse(out) as Outcome[]
}

/** The Python probe. */
export const pythonProbe = join(here, 'openai-probe.py')

/** The JavaScript probe with its types taken away; returns its path. */
export function plainProbe(): string {
  const out = join(folder, 'probe')
  mkdirSync(out, { recursive: true })
  const compilerOptions = {
    module: ts.ModuleKind.ESNext,
    target: ts.ScriptTarget.ES2022,
    rewriteRelativeImportExtensions: true,
  }
  for (const name of ['openai-probe', 'openai-probe-process']) {
    const source = readFileSync(join(here, `${name}.ts`), 'utf8')
    writeFileSync(join(out, `${name}.js`), ts.transpileModule(source, { compilerOptions }).outputText)
  }
  return join(out, 'openai-probe-process.js')
}
