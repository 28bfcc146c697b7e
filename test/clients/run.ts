/** Clients that are no development dependencies, and load generators (docs/clients.md). */
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Processes } from '../engines/processes.ts'
import { compare, heading, judge, row, startSides } from './comparison.ts'
import { folder, installOldNode, installPython } from './install.ts'
import { aiperf, inferencePerf } from './load.ts'
import { openAiCases } from './openai-cases.ts'
import { plainProbe, probeProcess, pythonProbe } from './probe-process.ts'
import { stageFor } from './stage.ts'

test('openai 3.54.0 for Python', async (t) => {
  const python = join(installPython('openai'), 'python')
  const stage = await stageFor(t)
  await stage.playAll('python', openAiCases, (requests) =>
    probeProcess(python, pythonProbe, { baseURL: `${stage.url}/v1`, requests }),
  )
})

test('openai 6.49.0 on Node 20', async (t) => {
  const node = installOldNode()
  const stage = await stageFor(t)
  await stage.playAll('node 20', openAiCases, (requests) =>
    probeProcess(node, plainProbe(), { baseURL: `${stage.url}/v1`, requests }),
  )
})

const processes = new Processes(join(folder, 'running.json'))
const rows: string[] = []

for (const [name, generator] of Object.entries({ aiperf, 'inference-perf': inferencePerf })) {
  test(`${name} finds no error, and first tokens as soon as without the router`, async () => {
    const tool = generator()
    const sides = await startSides(processes)
    const comparison = await compare(tool, sides)
    processes.endAll()
    rows.push(row(comparison))
    judge(comparison)
  })
}

after(() => {
  const machine = `${availableParallelism()} × ${cpus()[0]?.model ?? 'processor'}`
  console.log(
    ['', `Node ${process.versions.node}, ${machine}; direct → through the router:`, ...heading, ...rows, ''].join('\n'),
  )
})
