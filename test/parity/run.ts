/**
 * Profiles that bear another router's name before that router itself (docs/parity.md): both are shown the same states, and
 * the workers that they choose are compared. The arguments name the suites; none: all of them. `seed=N` draws other states,
 * `states=N` more or fewer of them, `keep` writes the fixtures of the tests that run without the other router.
 */
import { availableParallelism, cpus } from 'node:os'
import { Report } from '../engines/report.ts'
import { dynamoParity } from './dynamo.ts'
import { sglangParity } from './sglang.ts'
import { parityOptions, type ParitySuite } from './suite.ts'

const suites: Readonly<Record<string, ParitySuite>> = { dynamo: dynamoParity, sglang: sglangParity }

const report = new Report()
try {
  const { named, ...options } = parityOptions(process.argv.slice(2))
  report.say(`Node ${process.versions.node}, ${availableParallelism()} × ${cpus()[0]?.model ?? 'processor'}`)
  for (const name of named.length === 0 ? Object.keys(suites) : named) {
    const suite = suites[name]
    if (suite === undefined) throw new Error(`"${name}" is none of ${Object.keys(suites).join(', ')}`)
    report.section(`${name}, seed ${options.seed}`)
    await suite(report, options)
  }
  report.end()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exit(1)
}
process.exit(0)
