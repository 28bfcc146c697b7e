import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { Verdict, type Finding, type Scenario } from './scenario.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** A fault that tests of a room inject better than a scenario could: they are run, and what they say is the finding. */
function provedBy(
  number: string,
  fault: string,
  promise: string,
  files: readonly string[],
  /** Only tests whose names match; left out: all of the files. */
  pattern?: string,
): Scenario {
  return { number, fault, promise, quick: false, run: () => runTests(files, pattern) }
}

async function runTests(files: readonly string[], pattern: string | undefined): Promise<Finding> {
  const only = pattern === undefined ? [] : ['--test-name-pattern', pattern]
  // A test run within a test run would take itself for a part of that one.
  const { NODE_TEST_CONTEXT: _, ...environment } = process.env
  const child = spawn(process.execPath, ['--test', '--test-reporter', 'tap', ...only, ...files], {
    cwd: root,
    env: environment,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let out = ''
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()))
  await new Promise((resolve) => child.once('close', resolve))
  const count = (name: string): number => Number(new RegExp(`^# ${name} (\\d+)$`, 'm').exec(out)?.[1] ?? 0)
  const told = [...out.matchAll(/^ *# (?!tests|suites|pass|fail|cancelled|skipped|todo|duration|Subtest)(.+)$/gm)]
  const verdict = new Verdict()
  verdict.add(
    `${files.map((file) => `\`${file}\``).join(', ')}: ${count('pass')} of ${count('tests')} tests pass`,
    count('pass') > 0 && count('pass') === count('tests'),
  )
  for (const [, line = ''] of told.slice(0, 4)) verdict.add(line.trim())
  return verdict.finding()
}

export const proved: readonly Scenario[] = [
  provedBy(
    '29',
    'replay comes reordered against live removals',
    'over 1,000 random schedules the final map holds no removed block',
    ['test/events/sequence.test.ts', 'test/events/ingest.test.ts'],
  ),
  provedBy(
    '30',
    'a batch comes twice; a block is stored twice; an unknown block is removed',
    'the same batch changes nothing; a block stored in two batches counts two; the unknown one is ignored and counted',
    ['test/events/sequence.test.ts', 'test/events/ingest.test.ts', 'test/map/contract.test.ts'],
    'twice|unknown|further engine|same map',
  ),
  provedBy(
    '33',
    'malformed, huge or foreign msgpack, unknown kinds of events, trailing fields',
    'skipped and counted; 10^6 fuzzed inputs, 0 crashes',
    ['test/events/decode.test.ts'],
  ),
]
