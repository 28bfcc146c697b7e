import { Worker } from 'node:worker_threads'
import { RouterError } from '../errors.ts'
import type { Finding } from '../routing/contract/contract.ts'

/** What the trial's thread is told. */
export interface TrialOrder {
  readonly url: string
  /** Those that the config gives to plugins, by their types. */
  readonly parameters: readonly { readonly type: string; readonly parameters: Readonly<Record<string, unknown>> }[]
}

export interface TrialFinding extends Finding {
  /** Kind and type. */
  readonly plugin: string
}

/** What hurts nobody but is not as it should be. */
const harmless: ReadonlySet<Finding['rule']> = new Set<Finding['rule']>(['not-repeatable', 'slow'])

/**
 * Plays made-up decisions with a module's plugins on a thread of its own, so that one that never returns, or ends the
 * process, does so there. Throws RouterError PLUGIN_INVALID for what would hurt requests.
 */
export async function tryPlugins(place: string, order: TrialOrder, timeoutMs: number): Promise<void> {
  const fault = (text: string): RouterError => new RouterError('PLUGIN_INVALID', `plugins: "${place}"${text}`)
  const findings = await trial(order, timeoutMs, fault)
  const worst = findings.find(({ rule }) => !harmless.has(rule))
  if (worst !== undefined)
    throw fault(`, ${worst.plugin} breaks the rule ${worst.rule} of docs/write-a-policy.md: ${worst.detail}`)
}

function trial(
  order: TrialOrder,
  timeoutMs: number,
  fault: (text: string) => RouterError,
): Promise<readonly TrialFinding[]> {
  return new Promise((resolve, reject) => {
    const extension = import.meta.url.endsWith('.ts') ? '.ts' : '.js'
    const thread = new Worker(new URL('./plugin-trial.thread' + extension, import.meta.url), {
      workerData: order,
      name: 'plugin-trial',
      stdout: true,
    })
    const timer = setTimeout(() => {
      reject(fault(` did not return from a trial within ${timeoutMs} ms (pluginLimits.trialMs)`))
      void thread.terminate()
    }, timeoutMs)
    thread.on('message', (findings: readonly TrialFinding[]) => resolve(findings))
    thread.on('error', (error) => reject(fault(` cannot be loaded: ${(error as Error).message}`)))
    thread.on('exit', () => {
      clearTimeout(timer)
      reject(fault(' ended its thread'))
    })
  })
}
