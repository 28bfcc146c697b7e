import { parentPort, workerData } from 'node:worker_threads'
import { RouterError } from '../errors.ts'
import { importPolicies } from '../routing/plugin-module.ts'
import type { PolicyPlugin } from '../routing/policy.ts'
import { runJob, type ReplayJob } from './job.ts'
import type { ThreadAnswer, ThreadSetup } from './pool.ts'
import { readTrace } from './traces/read.ts'

const port = parentPort
if (port === null) throw new Error('replay.thread is started as a worker thread only')
const { path, read, plugins, stop } = workerData as ThreadSetup
const stopped = new Int32Array(stop)
const trace = readTrace(path, read)
const policies = Promise.all(plugins.map(policiesOf)).then((found) => found.flat())
// A fault of either is told with the first job.
trace.catch(() => undefined)
policies.catch(() => undefined)

port.on('message', (job: ReplayJob) => void run(job))

async function policiesOf(url: string): Promise<PolicyPlugin[]> {
  let found: PolicyPlugin[]
  try {
    found = await importPolicies(url)
  } catch (cause) {
    throw new RouterError('PLUGIN_INVALID', `Cannot load the plugin ${url}: ${(cause as Error).message}`)
  }
  if (found.length === 0) throw new RouterError('PLUGIN_INVALID', `The plugin ${url} exports no policy`)
  return found
}

async function run(job: ReplayJob): Promise<void> {
  port?.postMessage(await answerTo(job))
}

async function answerTo(job: ReplayJob): Promise<ThreadAnswer> {
  try {
    const onProgress = (progress: { readonly nowMs: number; readonly answered: number }): boolean => {
      port?.postMessage({ kind: 'progress', progress } satisfies ThreadAnswer)
      return Atomics.load(stopped, 0) === 0
    }
    return { kind: 'done', result: await runJob(job, { trace: await trace, plugins: await policies, onProgress }) }
  } catch (error) {
    const { message, stack } = error as Error
    if (error instanceof RouterError) return { kind: 'failed', code: error.code, message }
    return { kind: 'failed', code: null, message: stack ?? message }
  }
}
