/** The simulated engines of the quick start. Ends when the process that started it lets go of the channel. */
import { startSimulators } from '../../src/simulator/simulate.ts'
import { loadTokenizer } from '../../src/tokenize/tokenizer.ts'
import type { EnginesMessage } from './engines.ts'
import { scenario, tokenizerPath } from './scenario.ts'

// Ctrl-C reaches every process of a terminal; here the router is to drain first.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined)

const say = (message: EnginesMessage): boolean => process.send?.(message) ?? false
const released = new Promise((resolve) => process.once('disconnect', resolve))

try {
  const { workers, model, engine } = scenario
  const tokenizer = await loadTokenizer({ path: tokenizerPath })
  const simulators = await startSimulators({ workers, model, engine, tokenizer })
  say({ urls: simulators.urls })
  await released
  await simulators.stop()
  process.exit(0)
} catch (fault) {
  say({ fault: fault instanceof Error ? fault.message : String(fault) })
  process.exitCode = 1
  if (process.connected) process.disconnect()
}
