import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { startSimulators } from '../../src/simulator/simulate.ts'
import { loadTokenizer } from '../../src/tokenize/tokenizer.ts'
import { configOf, demoTokenizer, fleetFor, model, type FleetOptions } from '../support/fleet.ts'
import { until } from '../support/until.ts'

/** An EndpointPickerConfig that keeps workers of one role. */
function endpointPicker(role: 'decode' | 'prefill'): string {
  return `
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
  - type: ${role}-filter
  - type: queue-scorer
  - type: metrics-data-source
`
}

function pickerFile(t: TestContext, text: string) {
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-picker-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'epp-config.yaml')
  let edits = 0
  const write = (next: string): void => {
    writeFileSync(path, next)
    // Two edits within the file system's clock tick would look like one.
    utimesSync(path, 1_800_000_000, 1_800_000_000 + ++edits)
  }
  write(text)
  return { path, write }
}

test('requests go by a file of llm-d’s, also after it was edited, and a bad edit leaves the one before', async (t) => {
  const { path, write } = pickerFile(t, endpointPicker('decode'))
  const tokenizer = await loadTokenizer({ path: demoTokenizer })
  const engines = await startSimulators({ workers: 2, model, tokenizer, engine: { stepBaseMs: 1 } })
  t.after(() => engines.stop())
  const options: FleetOptions = {
    workers: 0,
    urls: engines.urls,
    pool: { profile: { from: path } },
    worker: (index: number) => ({ labels: { 'llm-d.ai/role': index === 0 ? 'decode' : 'prefill' } }),
    config: { reload: { pollMs: 100 } },
  }
  const load = () => configOf(options, engines.urls)
  const fleet = await fleetFor(t, { ...options, source: { file: null, load } })
  const chosen = async (): Promise<string | null> => {
    const answer = await fleet.chat('hello')
    await answer.text()
    return answer.headers.get('x-warmroute-worker')
  }
  assert.equal(await chosen(), engines.urls[0])
  const [decision] = await fleet.decisions(1)
  assert.equal(decision?.profile, 'llm-d')
  assert.ok(
    fleet.log.some(({ fields }) =>
      String(fields['note']).includes('"metrics-data-source" is handled by the router itself'),
    ),
  )
  write(endpointPicker('prefill'))
  await until(async () => (await chosen()) === engines.urls[1], 'the edited file is in force')
  write(endpointPicker('prefill').replace('queue-scorer', 'quue-scorer'))
  await until(
    () =>
      fleet.log.some(({ fields }) => /plugins\[1\]: unknown plugin type "quue-scorer"/.test(String(fields['fault']))),
    'the fault is told',
  )
  assert.equal(await chosen(), engines.urls[1])
})
