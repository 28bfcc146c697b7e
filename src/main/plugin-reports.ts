import type { PluginFault } from '../routing/plugin-guard.ts'
import type { Log } from '../telemetry/log.ts'
import type { Cell, Metrics } from '../telemetry/metrics.ts'

/** Between two log lines about one plugin. */
const quietMs = 10_000

/** Counts the calls of policy plugins, the time they take and what they do wrong, of which the log tells now and then. */
export function pluginReports(metrics: Metrics, log: Log, clock: () => number) {
  const cells = new Map<string, { readonly calls: Cell; readonly seconds: Cell }>()
  const toldMs = new Map<string, number>()
  const fault: PluginFault = (plugin, error, isPaused) => {
    metrics.policyErrors.add(1, plugin)
    if (isPaused) metrics.policyPauses.add(1, plugin)
    if (!isPaused && clock() - (toldMs.get(plugin) ?? -Infinity) < quietMs) return
    toldMs.set(plugin, clock())
    const what = isPaused ? 'a policy plugin keeps failing and is left out for a while' : 'a policy plugin failed'
    log.error({ plugin, error: String(error) }, what)
  }
  const observe = (plugin: string, ms: number): void => {
    let cell = cells.get(plugin)
    if (cell === undefined) {
      cell = { calls: metrics.policyCalls.cell(plugin), seconds: metrics.policySeconds.cell(plugin) }
      cells.set(plugin, cell)
    }
    cell.calls.value++
    cell.seconds.value += ms / 1000
  }
  return { fault, observe }
}
