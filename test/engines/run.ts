/**
 * Warmroute before engines that are not its own (docs/real-engine.md): NVIDIA Dynamo's mocker and the real vLLM, both
 * with a cache that is too small. The arguments name the parts: mocker, vllm (default: both), order, which takes as long as
 * both and so runs by its name alone, or one case of the mocker, as in mocker:SGLang.
 */
import { availableParallelism, cpus } from 'node:os'
import { mockerRun } from './mocker-run.ts'
import { orderRun } from './order-run.ts'
import { Report } from './report.ts'
import { vllmRun } from './vllm-run.ts'

const parts: Readonly<Record<string, (report: Report, only?: string) => Promise<void>>> = {
  mocker: mockerRun,
  order: orderRun,
  vllm: vllmRun,
}
const usual = ['mocker', 'vllm']
const report = new Report()
try {
  const named = process.argv.slice(2)
  report.say(`Node ${process.versions.node}, ${availableParallelism()} × ${cpus()[0]?.model ?? 'processor'}`)
  for (const argument of named.length === 0 ? usual : named) {
    const [name = '', only] = argument.split(':')
    const part = parts[name]
    if (part === undefined) throw new Error(`"${name}" is none of ${Object.keys(parts).join(', ')}`)
    await part(report, only)
  }
  report.end()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exit(1)
}
process.exit(0)
