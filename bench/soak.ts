/**
 * The long run of docs/reliability.md: `npm run bench soak`, or `npm run bench soak -- --minutes 120`.
 * Every sample is kept in bench/results/soak.json.
 */
import { Rig } from '../test/reliability/rig.ts'
import { runSoak, soak } from '../test/reliability/soak.ts'
import { keepFindings } from './findings.ts'
import { commit, machine } from './machine.ts'
import type { Told } from './result.ts'

export async function run(words: readonly string[]): Promise<Told> {
  const given = Number(words[words.indexOf('--minutes') + 1])
  const minutes = words.includes('--minutes') && given > 0 ? given : 10
  const before = machine()
  const rig = new Rig(true)
  try {
    const finding = await runSoak(rig, minutes)
    console.log(`${finding.holds ? 'holds' : 'DOES NOT HOLD'}  ${soak.fault}\n    ${finding.measured}`)
    const kept = { number: soak.number, ...finding, commit: commit(), date: new Date().toISOString(), machine: before }
    keepFindings('soak', new Map([[soak.number, kept]]))
    return { missed: finding.holds ? 0 : 1 }
  } finally {
    await rig.close()
  }
}
