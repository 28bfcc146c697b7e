/**
 * Warmroute before two real vLLM engines (docs/real-engine.md). The argument names the tokenizer: qwen3 (default),
 * llama3_1 or deepseek_v3.
 */
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'
import { conversations, discovery, together } from './conversations.ts'
import { Engine } from './engine.ts'
import { agreement, death, disconnects, evictions, reset, restart } from './failures.ts'
import { install, makeModel } from './install.ts'
import { Lab } from './lab.ts'
import { Processes } from '../engines/processes.ts'
import { Report } from '../engines/report.ts'
import { bytes, forms, severalPrompts, tokenize } from './requests.ts'
import { Router } from '../engines/router.ts'

const fewBlocks = 96

const report = new Report()
const say = (line: string): void => report.say(line)
try {
  report.section('Installation')
  const installation = install(say)
  const model = makeModel(installation, process.argv[2] ?? 'qwen3', say)
  const processes = new Processes(join(installation.folder, 'running.json'))
  say(
    `vLLM ${installation.vllmVersion}, Node ${process.versions.node}, ${availableParallelism()} × ${cpus()[0]?.model ?? 'processor'}`,
  )

  report.section('Start')
  const engines = [
    await Engine.at('engine 1', model, installation, processes),
    await Engine.at('engine 2', model, installation, processes),
  ] as const
  for (const engine of engines) engine.start()
  say(`two engines with block size 32 and ${model.split('/').at(-1)}`)
  await Promise.all(engines.map((engine) => engine.ready()))
  say('both answer')
  const log = join(installation.folder, 'logs', 'router.txt')
  const router = await Router.start(
    engines.map(({ url }) => url),
    model,
    log,
    processes,
  )

  const lab = new Lab(report, router, engines)
  await discovery(lab)
  const users = await conversations(lab)
  await together(lab, users)
  await forms(lab)
  await severalPrompts(lab)
  await tokenize(lab)
  await bytes(lab)
  await disconnects(lab)
  const victim = await death(lab, users)
  await restart(lab, victim, fewBlocks, users)
  await evictions(lab, victim)
  const [other] = engines.filter((engine) => engine !== victim)
  const user = users.find(({ engine }) => engine === other)
  if (other !== undefined && user !== undefined) await reset(lab, other, user)
  await agreement(lab)
  report.end()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exit(1)
}
process.exit(0)
