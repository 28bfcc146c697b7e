import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatEndpoint, parseEndpoint } from '../../src/zmtp/endpoint.ts'

test('endpoints are read and written back', () => {
  for (const [text, host, port] of [
    ['tcp://127.0.0.1:5557', '127.0.0.1', 5557],
    ['tcp://engine-0.engines:5557', 'engine-0.engines', 5557],
    ['tcp://*:0', '', 0],
    ['tcp://[::1]:65535', '::1', 65535],
    ['tcp://[fe80::1%eth0]:1', 'fe80::1%eth0', 1],
  ] as const) {
    assert.deepEqual(parseEndpoint(text), { host, port })
    assert.equal(formatEndpoint(parseEndpoint(text)), text)
  }
})

test('what is no tcp endpoint is a CONFIG_INVALID that shows the right form', () => {
  for (const text of [
    '',
    'tcp://',
    'ipc:///tmp/x',
    'tcp://host',
    'tcp://host:65536',
    'tcp://::1:5',
    'tcp://a b:1',
    'tcp://[]:1',
    'http://h:1',
  ]) {
    assert.throws(() => parseEndpoint(text), { code: 'CONFIG_INVALID', message: /tcp:\/\/host:port/ }, text)
  }
})
