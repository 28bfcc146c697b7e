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
  const child = spawn(process.execPath, ['--test', '--test-reporter', 'tap', ...only, ...files], {
    cwd: root,
    env: { ...process.env, NODE_TEST_CONTEXT: undefined },
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
    '19',
    '19 hostile requests in raw bytes (two lengths, folded headers, two hosts, CONNECT, a TLS hello …)',
    '0 answers 2xx; two hosts and an absolute URL get 400; 0 reach an engine',
    ['test/system/hostile-http.test.ts'],
    'hostile requests',
  ),
  provedBy(
    '22',
    'CR LF in x-request-id, an id of 8 kB',
    'refused or replaced',
    ['test/system/hostile-http.test.ts'],
    'request ids',
  ),
  provedBy(
    '23',
    'addresses in a body (image_url at a link-local address, an engine’s URL); the admin port',
    '0 outgoing calls by the router; admin on loopback only, or with a key',
    ['test/system/hostile-engines.test.ts', 'test/http/admin-guard.test.ts', 'test/system/front-door.test.ts'],
    'no address in a body|admin port|loopback name|every admin endpoint',
  ),
  provedBy(
    '26',
    'an engine answers with a header bomb, 101, 1xx steps or a redirect',
    'not followed; 502',
    ['test/system/hostile-engines.test.ts'],
    'an answer that is none|redirect|headers of an answer',
  ),
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
