import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { hashOfKey } from '../../src/admission/api-keys.ts'
import { warmrouteBin } from '../support/command.ts'

function hashKey(argv: readonly string[], input: string): { status: number | null; out: string; error: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [warmrouteBin, 'hash-key', ...argv], {
    input,
    encoding: 'utf8',
  })
  return { status, out: stdout, error: stderr }
}

test('hash-key prints the hash of the key on standard input, with or without a line end', () => {
  const key = 'wr-0123456789abcdef'
  for (const end of ['', '\n', '\r\n'])
    assert.deepEqual(hashKey([], key + end), { status: 0, out: `hash: ${hashOfKey(key)}\n`, error: '' })
})

test('hash-key generates another key each time, and its hash', () => {
  const [first, second] = [hashKey(['--generate'], ''), hashKey(['--generate'], '')]
  const [, key, hash] = /^key: (\S+)\nhash: (\S+)\n$/.exec(first.out) ?? []
  assert.equal(hash, hashOfKey(key ?? ''))
  assert.ok((key ?? '').length > 40)
  assert.notEqual(first.out, second.out)
})

test('hash-key refuses a key that can be guessed or not be sent, and does not repeat it', () => {
  for (const key of ['short', 'sixteen characters with spaces', 'schlüssel-schlüssel']) {
    const { status, out, error } = hashKey([], key)
    assert.deepEqual([status, out], [1, ''])
    assert.match(error, /at least 16 visible ASCII characters/)
    assert.ok(!error.includes(key))
  }
})
