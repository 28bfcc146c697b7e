import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, openSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { LineWriter } from '../../src/telemetry/line-writer.ts'
import { createLog } from '../../src/telemetry/log.ts'
import { until } from '../support/until.ts'

const folder = mkdtempSync(join(tmpdir(), 'warmroute-log-'))

function opened(name: string): { file: string; fileDescriptor: number } {
  const file = join(folder, name)
  return { file, fileDescriptor: openSync(file, 'w') }
}

test('every line is written once and in order, however flushes fall between', async () => {
  const { file, fileDescriptor } = opened('order')
  const writer = new LineWriter(fileDescriptor)
  const lines = Array.from({ length: 5000 }, (_, i) => `${i} ${'ü€😀'.repeat(i % 40)}\n`)
  for (const [index, line] of lines.entries()) {
    writer.write(line)
    if (index % 700 === 0) writer.flush()
    if (index % 1900 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  writer.write(`${'x'.repeat(300_000)}\n`)
  writer.flush()
  const whole = `${lines.join('')}${'x'.repeat(300_000)}\n`
  await until(() => readFileSync(file, 'utf8').length === whole.length, 'all lines are written')
  assert.equal(readFileSync(file, 'utf8'), whole)
  closeSync(fileDescriptor)
})

test('at the end of the process everything left is written before the call returns', () => {
  const { file, fileDescriptor } = opened('end')
  const writer = new LineWriter(fileDescriptor)
  writer.write('one\n')
  writer.write('two\n')
  writer.flushSync()
  assert.equal(readFileSync(file, 'utf8'), 'one\ntwo\n')
})

test('a reader that is gone stops the writing, not the process', async () => {
  const { fileDescriptor } = opened('gone')
  closeSync(fileDescriptor)
  const writer = new LineWriter(fileDescriptor)
  writer.write('nobody reads this\n')
  writer.flush()
  await new Promise((resolve) => setImmediate(resolve))
  writer.write('nor this\n')
  writer.flushSync()
})

test('log lines are JSON with the time, the fields and a constant message, from the configured level on', () => {
  const { file, fileDescriptor } = opened('level')
  const log = createLog('warn', fileDescriptor)
  log.info({ a: 1 }, 'quiet')
  log.warn({ worker: 'w', text: 'quo"te\n' }, 'loud')
  log.flush()
  const lines = readFileSync(file, 'utf8').trim().split('\n')
  assert.equal(lines.length, 1)
  const line = JSON.parse(lines[0] ?? '') as Record<string, unknown>
  assert.deepEqual([line['worker'], line['text'], line['msg'], line['level']], ['w', 'quo"te\n', 'loud', 40])
  assert.ok(!Number.isNaN(Date.parse(String(line['time']))))
})
