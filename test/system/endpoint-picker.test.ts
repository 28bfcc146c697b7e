import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startSimulators } from '../../src/simulator/simulate.ts'
import { loadTokenizer } from '../../src/tokenize/tokenizer.ts'
import { configOf, demoTokenizer, fleetFor, model, type FleetOptions } from '../support/fleet.ts'
import { editedFile } from '../support/edited-file.ts'
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

test('requests go by a file of llm-d’s, also after it was edited, and a bad edit leaves the one before', async (t) => {
  const { path, write } = editedFile(t, 'epp-config.yaml', endpointPicker('decode'))
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
