/**
 * Puts a router and engines, each a process of its own, under every fault of docs/reliability.md at full size.
 * `npm run bench faults -- 6 12` runs two of them again and keeps the others' findings.
 */
import { runScenario, scenarios } from '../test/reliability/run.ts'
import { keepFindings, keptFindings } from './findings.ts'
import { commit, machine } from './machine.ts'
import type { Told } from './result.ts'

export async function run(numbers: readonly string[]): Promise<Told> {
  let missed = 0
  for (const scenario of scenarios) {
    const { number, fault } = scenario
    if (numbers.length > 0 && !numbers.includes(number)) continue
    const before = machine()
    const finding = await runScenario(scenario, true)
    console.log(`${finding.holds ? 'holds' : 'DOES NOT HOLD'}  ${number}. ${fault}\n    ${finding.measured}`)
    if (!finding.holds) missed++
    // Kept one by one, so that a run that is ended half-way keeps what it found.
    const kept = keptFindings('faults')
    kept.set(number, { number, ...finding, commit: commit(), date: new Date().toISOString(), machine: before })
    keepFindings('faults', kept)
  }
  return { missed }
}
