import assert from 'node:assert/strict'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { environmentName, flags } from '../../src/config/flags.ts'
import { loadConfig, type ConfigSources } from '../../src/config/load.ts'
import { printedConfig } from '../../src/config/print.ts'
import { RouterError } from '../../src/errors.ts'

const folder = mkdtempSync(join(tmpdir(), 'warmroute-config-'))

function fileWith(text: string): string {
  const file = join(folder, 'config.yaml')
  writeFileSync(file, text)
  return file
}

function faultOf(sources: ConfigSources): string {
  try {
    loadConfig(sources)
  } catch (error) {
    assert.ok(error instanceof RouterError, String(error))
    return error.message
  }
  return 'no fault'
}

const smallest = 'pools: [{ model: m, workers: [{ url: "http://127.0.0.1:8000" }] }]\n'

test('the smallest file gets every default', () => {
  const config = loadConfig({ file: fileWith(smallest) })
  assert.equal(config.listen.port, 8080)
  assert.equal(config.limits.bodyBytes, 32 * 1024 * 1024)
  assert.equal(config.expose, 'loopback')
  assert.equal(config.pools[0]?.workers[0]?.url, 'http://127.0.0.1:8000')
})

test('a flag wins over the environment, which wins over the file', () => {
  const file = fileWith(`listen: { port: 1 }\nhealth: { intervalMs: 11 }\nlog: { level: warn }\n${smallest}`)
  const config = loadConfig({
    file,
    flags: { port: '3' },
    environment: { WARMROUTE_PORT: '2', WARMROUTE_LOG_LEVEL: 'error' },
  })
  assert.equal(config.listen.port, 3)
  assert.equal(config.log.level, 'error')
  assert.equal(config.health.intervalMs, 11)
})

test('no file is needed: worker urls and a model path are enough', () => {
  const config = loadConfig({
    flags: {
      'worker-urls': ['http://a:1', 'http://b:2,http://c:3'],
      'model-path': '/models/x',
      'request-timeout-secs': '2',
    },
  })
  assert.deepEqual(config.workerUrls, ['http://a:1', 'http://b:2', 'http://c:3'])
  assert.equal(config.modelPath, '/models/x')
  assert.equal(config.timeouts.totalMs, 2000)
})

test('every flag has its environment name and a place in the schema', () => {
  for (const flag of flags) {
    const value = { integer: '7', list: 'http://a:1', text: 'info' }[flag.kind]
    assert.match(environmentName(flag), /^WARMROUTE_[A-Z_]+$/)
    const fault = faultOf({ environment: { WARMROUTE_WORKER_URLS: 'http://a:1', [environmentName(flag)]: value } })
    assert.doesNotMatch(fault, /unknown option/, flag.name)
  }
})

test('what is wrong with a profile is told of the form that was meant, at its place', () => {
  const profile = (text: string): string =>
    faultOf({ file: fileWith(`pools: [{ model: m, profile: ${text}, workers: [{ url: "http://127.0.0.1:8000" }] }]`) })
  assert.match(profile('{ scorer: [] }'), /pools\[0\]\.profile: unknown option "scorer"; did you mean "scorers"\?/)
  assert.match(profile('{ scorers: [{ type: prefix, wieght: 2 }] }'), /profile\.scorers\[0\]: unknown option "wieght"/)
  assert.match(profile('{ scorers: [{ weight: 2 }] }'), /profile\.scorers\[0\]: "type" is missing/)
  assert.match(profile('{ from: a.yaml, name: x }'), /profile: unknown option "name".*from/)
  assert.match(profile('{ picker: { type: random, weight: 2 } }'), /profile\.picker: unknown option "weight"/)
  assert.match(profile('7'), /pools\[0\]\.profile: .*not 7/)
})

test('an unknown option is an error that names its place and the nearest known one', () => {
  assert.match(
    faultOf({ file: fileWith(`lisen: { port: 1 }\n${smallest}`) }),
    /unknown option "lisen"; did you mean "listen"\?/,
  )
  assert.match(
    faultOf({ file: fileWith('pools: [{ model: m, workers: [{ url: "http://a:1", blocksize: 16 }] }]') }),
    /pools\[0\]\.workers\[0\]: unknown option "blocksize"; did you mean "blockSize"\?/,
  )
})

test('every fault is told, each with its place', () => {
  const message = faultOf({
    file: fileWith('listen: { port: 99999 }\nexpose: everyone\npools: [{ workers: [{ url: "http://a:1" }] }]'),
  })
  assert.match(message, /listen\.port: .*65535/)
  assert.match(message, /expose: "everyone" is not one of loopback, keys, all/)
  assert.match(message, /pools\[0\]: "model" is missing/)
})

test('a YAML fault names the line', () => {
  assert.match(faultOf({ file: fileWith('listen:\n  port: 1\n  port: 2\n') }), /config\.yaml:3:3: not valid YAML/)
  assert.match(faultOf({ file: fileWith('- a\n- b\n') }), /must hold a mapping/)
})

test('what no schema can say is checked too', () => {
  assert.match(faultOf({ file: fileWith('pools: []') }), /no workers/)
  assert.match(
    faultOf({ file: fileWith('pools: [{ model: m, workers: [{ url: "ftp://a" }] }]') }),
    /neither http nor https/,
  )
  assert.match(
    faultOf({
      file: fileWith(
        'pools: [{ model: m, workers: [] }, { model: n, aliases: [m], workers: [{ url: "http://a:1" }] }]',
      ),
    }),
    /already names pools\[0\]/,
  )
  assert.match(
    faultOf({ file: fileWith('pools: [{ model: m, workers: [{ url: "http://a:1" }, { url: "http://A:1/" }] }]') }),
    /same engine/,
  )
  assert.match(faultOf({ file: '/no/such/file.yaml' }), /Cannot read/)
  assert.match(faultOf({ flags: { port: 'abc' } }), /--port .*takes a number/)
})

test('an API key is named once, and a key in place of its hash is not repeated', () => {
  const hash = `sha256:${'0'.repeat(64)}`
  const fault = faultOf({
    file: fileWith(
      `apiKeys: [{ id: a, hash: "${hash}" }, { id: b, hash: "${hash}" }, { id: a, hash: wr-planted-key }]\n${smallest}`,
    ),
  })
  assert.match(fault, /apiKeys\[1\]\.hash: the same key as apiKeys\[0\]/)
  assert.match(fault, /apiKeys\[2\]\.id: "a" already names apiKeys\[0\]/)
  assert.match(fault, /apiKeys\[2\]\.hash: not the hash of a key; "warmroute hash-key" makes one/)
  assert.doesNotMatch(fault, /planted|0000/)
})

test('admission has its defaults', () => {
  const { admission, apiKeys } = loadConfig({ file: fileWith(smallest) })
  assert.deepEqual(apiKeys, [])
  assert.deepEqual(admission, {
    queue: { requests: 256, timeoutMs: 2000 },
    overloadStatus: 429,
    saturation: { waitingRequests: 8, kvUsage: 0.95 },
  })
  assert.match(
    faultOf({ file: fileWith(`admission: { overloadStatus: 500 }\n${smallest}`) }),
    /admission\.overloadStatus: /,
  )
})

test('the printed config shows no secret', () => {
  const config = loadConfig({
    file: fileWith(
      `apiKeys: [{ id: a, hash: "sha256:${'5'.repeat(64)}" }]\nkeys: { secret: 0123456789abcdef }\n` +
        'pools: [{ model: m, workers: [{ url: "http://user:pw@a:1", apiKey: sk-1, headers: { x-key: sk-2 } }] }]',
    ),
  })
  const printed = printedConfig(config)
  for (const secret of ['0123456789abcdef', '5555', 'pw', 'sk-1', 'sk-2']) assert.ok(!printed.includes(secret), secret)
  assert.match(printed, /port: 8080/)
})

test('an admin port that other machines reach needs a key or certificates', () => {
  const admin = (options: string): string => faultOf({ file: fileWith(`admin: { port: 1, ${options} }\n${smallest}`) })
  for (const host of ['0.0.0.0', '::', '10.0.0.1', 'router.example']) {
    assert.match(admin(`host: "${host}"`), /admin\.host: .* is open to other machines/, host)
    assert.equal(admin(`host: "${host}", keyHash: "sha256:${'a'.repeat(64)}"`), 'no fault')
    assert.equal(admin(`host: "${host}", tls: { cert: c, key: k, clientCa: a }`), 'no fault')
  }
  for (const host of ['127.0.0.1', '127.9.9.9', '::1', 'localhost']) assert.equal(admin(`host: "${host}"`), 'no fault')
  const shown = admin('keyHash: my-plain-admin-key')
  assert.match(shown, /^.*admin\.keyHash: not the hash of a key/)
  assert.doesNotMatch(shown, /my-plain/)
})

test('proxies are addresses or ranges, and a worker’s certificate has its key', () => {
  const proxies = (list: string): string =>
    faultOf({ file: fileWith(`forwarded: { trustedProxies: [${list}] }\n${smallest}`) })
  assert.equal(proxies('10.0.0.0/8, "::1", "2001:db8::/32", 192.0.2.1, 0.0.0.0/0'), 'no fault')
  for (const bad of ['10.0.0.0/33', '"::1/129"', 'proxy.example', '10.0.0.0/8/8', '10.0.0.0/', '10.0.0'])
    assert.match(proxies(bad), /forwarded\.trustedProxies\[0\]: .* is no address/, bad)
  const half = smallest.replace('http://127.0.0.1:8000"', 'https://127.0.0.1:8000", tls: { cert: c.pem }')
  assert.match(faultOf({ file: fileWith(half) }), /pools\[0\]: tls\.cert and tls\.key go together/)
})

test('paths of certificates are relative to the file', () => {
  const tls = '{ cert: c.pem, key: k.pem, clientCa: ca.pem }'
  const config = loadConfig({
    file: fileWith(
      `listen: { tls: ${tls} }\n${smallest.replace('model: m', 'model: m, tls: { ca: ca.pem }').replace('8000"', '8000", tls: { ca: own.pem }')}`,
    ),
  })
  assert.deepEqual(config.listen.tls, {
    cert: join(folder, 'c.pem'),
    key: join(folder, 'k.pem'),
    clientCa: join(folder, 'ca.pem'),
  })
  assert.equal(config.pools[0]?.tls?.ca, join(folder, 'ca.pem'))
  assert.equal(config.pools[0].workers[0]?.tls?.ca, join(folder, 'own.pem'))
})
