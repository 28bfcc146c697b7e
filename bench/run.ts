/**
 * Runs the benchmarks, all or those that are named, and keeps the results as JSON in bench/results/:
 * machine, commit, command, samples; docs/ tells them. Figures of a shared machine are noisy: compare the ratios within one run.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { docsOfResults } from '../scripts/docs.ts'
import { commit, machine } from './machine.ts'
import { printResults, type BenchResult, type Told } from './result.ts'

interface Bench {
  readonly name: string
  /** Takes minutes or gigabytes: runs only when it is asked for. */
  readonly onlyByName?: boolean
  readonly load: () => Promise<{ run: (words: readonly string[]) => BenchResult[] | Promise<BenchResult[] | Told> }>
}

const benches: readonly Bench[] = [
  { name: 'keys', load: () => import('./micro/keys.ts') },
  { name: 'map', load: () => import('./micro/map.ts').then(({ run }) => ({ run: () => run() })) },
  { name: 'map-large', onlyByName: true, load: async () => ({ run: (await import('./micro/map.ts')).runLarge }) },
  { name: 'snapshot', onlyByName: true, load: () => import('./micro/snapshot.ts') },
  { name: 'events', load: () => import('./micro/events.ts') },
  { name: 'polled', load: () => import('./micro/polled.ts') },
  { name: 'tokenize', load: () => import('./micro/tokenize.ts') },
  { name: 'turn', load: () => import('./micro/turn.ts') },
  { name: 'turn-process', load: () => import('./load/turn-process.ts') },
  { name: 'own', load: () => import('./micro/own.ts') },
  { name: 'tiers', load: () => import('./micro/tiers.ts') },
  { name: 'truth', load: () => import('./micro/truth.ts') },
  { name: 'decision', load: () => import('./micro/decision.ts') },
  { name: 'guards', load: () => import('./micro/guards.ts') },
  { name: 'overhead', load: () => import('./load/overhead.ts') },
  { name: 'prediction', load: () => import('./load/prediction.ts') },
  { name: 'quality', load: () => import('./replay/quality.ts') },
  { name: 'replication', load: () => import('./load/replication.ts') },
  { name: 'replicas', load: () => import('./replay/replicas.ts') },
  {
    name: 'agentic',
    onlyByName: true,
    load: async () => ({ run: (await import('./replay/routing.ts')).run('agentic') }),
  },
  {
    name: 'mooncake',
    onlyByName: true,
    load: async () => ({ run: (await import('./replay/routing.ts')).run('mooncake') }),
  },
  { name: 'constants', onlyByName: true, load: () => import('./replay/constants.ts') },
  { name: 'knobs', onlyByName: true, load: () => import('./replay/knobs.ts') },
  { name: 'no-reuse', onlyByName: true, load: () => import('./replay/no-reuse.ts') },
  { name: 'bad-day', onlyByName: true, load: () => import('./replay/bad-day.ts') },
  { name: 'storage', onlyByName: true, load: () => import('./replay/storage.ts') },
  { name: 'real-time', onlyByName: true, load: () => import('./replay/real-time.ts') },
  { name: 'faults', onlyByName: true, load: () => import('./faults.ts') },
  { name: 'soak', onlyByName: true, load: () => import('./soak.ts') },
]

const words = process.argv.slice(2)
const named = benches.filter(({ name }) => words.includes(name))
const chosen = words.length === 0 ? benches.filter(({ onlyByName }) => onlyByName !== true) : named
if (chosen.length === 0) {
  console.error(`No benchmark of that name. Known: ${benches.map(({ name }) => name).join(', ')}`)
  process.exit(2)
}

const folder = fileURLToPath(new URL('results/', import.meta.url))
mkdirSync(folder, { recursive: true })
let missed = 0
for (const { name, load } of chosen) {
  console.log(`\n${name}`)
  const before = { commit: commit(), machine: machine() }
  const others = words.filter((word) => !named.some((bench) => bench.name === word))
  const results = await (await load()).run(others)
  if (!Array.isArray(results)) {
    missed += results.missed
    continue
  }
  printResults(results)
  missed += results.filter(({ met }) => met === false).length
  const record = {
    bench: name,
    command: ['npm run bench', name, ...others].join(' '),
    date: new Date().toISOString(),
    ...before,
    results,
  }
  writeFileSync(`${folder}${name}.json`, `${JSON.stringify(record, null, 2)}\n`)
}
for (const [path, text] of Object.entries(docsOfResults()))
  writeFileSync(fileURLToPath(new URL(`../${path}`, import.meta.url)), text)
console.log(missed === 0 ? '\nEvery goal was met.' : `\n${missed} goals were missed.`)
