import { clients } from './clients.ts'
import { enginesDie } from './engines-die.ts'
import { enginesFail } from './engines-fail.ts'
import { enginesJoin } from './engines-join.ts'
import { events } from './events.ts'
import { input } from './input.ts'
import { life } from './life.ts'
import { malformedStreams } from './malformed-streams.ts'
import { overload } from './overload.ts'
import { proved } from './proved.ts'
import { redisFaults } from './redis.ts'
import { Rig } from './rig.ts'
import type { Finding, Scenario } from './scenario.ts'
import { slowSenders } from './slow-senders.ts'
import { storm } from './storm.ts'

/** Every scenario, in the order of its number. */
export const scenarios: readonly Scenario[] = [
  ...enginesDie,
  ...enginesFail,
  ...enginesJoin,
  ...clients,
  slowSenders,
  ...input,
  malformedStreams,
  ...events,
  ...proved,
  storm,
  ...life,
  ...redisFaults,
  overload,
].sort((a, b) => a.number.localeCompare(b.number, 'en', { numeric: true }))

/** Runs a scenario at its full or its reduced size. What it throws is a promise not kept. */
export async function runScenario(scenario: Scenario, full: boolean): Promise<Finding> {
  const rig = new Rig(full)
  try {
    return await scenario.run(rig)
  } catch (error) {
    return { measured: `**${error instanceof Error ? error.message : String(error)}**`, holds: false }
  } finally {
    await rig.close()
  }
}

/** `node test/reliability/run.ts [--full] [--samples] [NUMBER…]`: runs scenarios and prints what they found. */
if (import.meta.main) {
  const wanted = process.argv.slice(2).filter((word) => !word.startsWith('--'))
  const full = process.argv.includes('--full')
  for (const scenario of scenarios) {
    if (wanted.length > 0 && !wanted.includes(scenario.number)) continue
    const startMs = performance.now()
    const { measured, holds, samples } = await runScenario(scenario, full)
    const seconds = ((performance.now() - startMs) / 1000).toFixed(1)
    console.log(`${holds ? 'ok ' : 'NOT'} ${scenario.number} (${seconds} s) ${scenario.fault}\n      ${measured}`)
    if (process.argv.includes('--samples')) console.log(`      ${samples?.join(' ') ?? ''}`)
  }
}
