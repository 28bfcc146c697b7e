import { parentPort, workerData } from 'node:worker_threads'
import { checkPolicy } from '../routing/contract/contract.ts'
import { importPolicies } from '../routing/plugin-module.ts'
import type { TrialFinding, TrialOrder } from './plugin-trial.ts'

/** Few: what a plugin does wrong it mostly does wrong at once. */
const decisions = 60

const { url, parameters } = workerData as TrialOrder
const findings: TrialFinding[] = []
for (const plugin of await importPolicies(url)) {
  const given = parameters.filter(({ type }) => type === plugin.type)
  for (const choice of given.length > 0 ? given : [{ type: plugin.type, parameters: {} }]) {
    // Nobody's parameters: whoever uses the plugin will have to give those that it needs.
    const isUnused = given.length === 0
    for (const { rule, detail } of checkPolicy(plugin, { parameters: choice.parameters, decisions, slowMs: Infinity }))
      if (!isUnused || rule !== 'parameters') findings.push({ plugin: `${plugin.kind} "${plugin.type}"`, rule, detail })
  }
}
parentPort?.postMessage(findings)
