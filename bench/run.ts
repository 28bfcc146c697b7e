/**
 * Runs the benchmarks, all or those that are named, and keeps the results as JSON in bench/results/:
 * machine, commit, command, samples. Figures of a shared machine are noisy: compare the ratios within one run.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'
import { printResults, type BenchResult } from './result.ts'

interface Bench {
  readonly name: string
  /** Takes minutes and gigabytes: runs only when it is asked for. */
  readonly onlyByName?: boolean
  readonly load: () => Promise<{ run: () => Promise<BenchResult[]> }>
}

const benches: readonly Bench[] = [
  { name: 'keys', load: () => import('./micro/keys.ts') },
  { name: 'map', load: () => import('./micro/map.ts') },
  { name: 'map-large', onlyByName: true, load: async () => ({ run: (await import('./micro/map.ts')).runLarge }) },
  { name: 'events', load: () => import('./micro/events.ts') },
  { name: 'tokenize', load: () => import('./micro/tokenize.ts') },
  { name: 'turn', load: () => import('./micro/turn.ts') },
  { name: 'turn-process', load: () => import('./load/turn-process.ts') },
  { name: 'overhead', load: () => import('./load/overhead.ts') },
  { name: 'quality', load: () => import('./replay/quality.ts') },
]

const wanted = process.argv.slice(2)
const chosen = benches.filter(({ name, onlyByName }) =>
  wanted.length === 0 ? onlyByName !== true : wanted.includes(name),
)
if (chosen.length === 0) {
  console.error(`No benchmark of that name. Known: ${benches.map(({ name }) => name).join(', ')}`)
  process.exit(2)
}

const folder = fileURLToPath(new URL('results/', import.meta.url))
mkdirSync(folder, { recursive: true })
let missed = 0
for (const { name, load } of chosen) {
  console.log(`\n${name}`)
  const loadBefore = loadavg()[0]
  const results = await (await load()).run()
  printResults(results)
  missed += results.filter(({ met }) => met === false).length
  const record = {
    bench: name,
    command: `npm run bench ${name}`,
    commit: commit(),
    date: new Date().toISOString(),
    machine: {
      cpu: cpus()[0]?.model ?? 'unknown',
      cores: cpus().length,
      memoryGiB: Math.round(totalmem() / 1024 ** 3),
      node: process.version,
      loadBefore,
    },
    results,
  }
  writeFileSync(`${folder}${name}.json`, `${JSON.stringify(record, null, 2)}\n`)
}
console.log(missed === 0 ? '\nEvery goal was met.' : `\n${missed} goals were missed.`)

function commit(): string {
  try {
    const text = (...args: string[]): string => execFileSync('git', args, { encoding: 'utf8' }).trim()
    return text('rev-parse', '--short', 'HEAD') + (text('status', '--porcelain', 'src') === '' ? '' : ' with changes')
  } catch {
    return 'unknown'
  }
}
