import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { parseWorkerList } from '../../src/config/load.ts'
import { LastGood } from '../../src/workers/discovery/discovery.ts'
import { DnsDiscovery, type DnsOptions } from '../../src/workers/discovery/dns.ts'
import { fileDiscovery } from '../../src/workers/discovery/file.ts'
import { WatchedFile } from '../../src/workers/discovery/watched-file.ts'
import { dnsServer } from '../support/dns-server.ts'
import { collectingLog, type LogLine } from '../support/fleet.ts'
import { until } from '../support/until.ts'

function findings() {
  const lists: string[][] = []
  const faults: string[] = []
  return {
    lists,
    faults,
    found: (engines: readonly { readonly url: string }[]) => void lists.push(engines.map(({ url }) => url)),
    confirmed: () => undefined,
    failed: (reason: string) => void faults.push(reason),
  }
}

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'warmroute-'))
  t.after(() => rmSync(path, { recursive: true }))
  return path
}

async function lookedUp(t: TestContext, server: string, options: Partial<DnsOptions>) {
  const told = findings()
  const discovery = new DnsDiscovery(
    {
      name: 'engines.test',
      type: 'A',
      port: 8000,
      scheme: 'http',
      intervalMs: 10,
      timeoutMs: 300,
      servers: [server],
      ...options,
    },
    told,
  )
  t.after(() => discovery.stop())
  discovery.start()
  await until(() => told.lists.length + told.faults.length > 0, 'the name was looked up')
  return told
}

test('addresses of a name become engines', async (t) => {
  const server = await dnsServer(t, {
    'engines.test': [
      { type: 'A', address: '10.0.0.2' },
      { type: 'A', address: '10.0.0.1' },
      { type: 'AAAA', address: 'fd00::1' },
    ],
  })
  const four = await lookedUp(t, server.address, {})
  assert.deepEqual(four.lists[0], ['http://10.0.0.1:8000', 'http://10.0.0.2:8000'])
  const six = await lookedUp(t, server.address, { type: 'AAAA', scheme: 'https' })
  assert.deepEqual(six.lists[0], ['https://[fd00::1]:8000'])
})

test('services bring their ports; those that stand by, and targets that are gone, are left out', async (t) => {
  const server = await dnsServer(t, {
    '_http._tcp.test': [
      { type: 'SRV', port: 9000, target: 'a.test' },
      { type: 'SRV', port: 9001, target: 'six.test' },
      { type: 'SRV', port: 9002, target: 'gone.test' },
      { type: 'SRV', port: 9003, target: 'a.test', priority: 5 },
    ],
    'a.test': [{ type: 'A', address: '10.0.0.1' }],
    'six.test': [{ type: 'AAAA', address: 'fd00::2' }],
  })
  const told = await lookedUp(t, server.address, { name: '_http._tcp.test', type: 'SRV', port: undefined })
  assert.deepEqual(told.lists[0], ['http://10.0.0.1:9000', 'http://[fd00::2]:9001'])
})

test('no answer, a refusal and an empty answer are faults, not an order to have no engines', async (t) => {
  const server = await dnsServer(t, {
    'servfail.test': 'SERVFAIL',
    'silent.test': 'silence',
    'empty.test': [{ type: 'AAAA', address: 'fd00::1' }],
    'half.test': [
      { type: 'SRV', port: 1, target: 'silent.test' },
      { type: 'SRV', port: 1, target: 'a.test' },
    ],
    'hollow.test': [{ type: 'SRV', port: 1, target: 'gone.test' }],
    'a.test': [{ type: 'A', address: '10.0.0.1' }],
  })
  for (const [name, type, pattern] of [
    ['absent.test', 'A', /ENOTFOUND/],
    ['servfail.test', 'A', /ESERVFAIL/],
    ['silent.test', 'A', /ETIMEOUT/],
    ['empty.test', 'A', /ENODATA/],
    ['half.test', 'SRV', /ETIMEOUT/],
    ['hollow.test', 'SRV', /no address/],
  ] as const) {
    const told = await lookedUp(t, server.address, { name, type, timeoutMs: 50 })
    assert.deepEqual(told.lists, [], name)
    assert.match(told.faults[0] ?? '', pattern, name)
  }
})

test('a discovery that was stopped asks no more', async (t) => {
  const server = await dnsServer(t, { 'engines.test': 'silence' })
  const told = findings()
  const discovery = new DnsDiscovery(
    {
      name: 'engines.test',
      type: 'A',
      port: 1,
      scheme: 'http',
      intervalMs: 10,
      timeoutMs: 60_000,
      servers: [server.address],
    },
    told,
  )
  discovery.start()
  await until(() => server.asked() === 1, 'it asked')
  discovery.stop()
  await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual([told.lists, told.faults], [[], []])
})

test('the last good list stays through faults, and each change is told once', () => {
  const log: LogLine[] = []
  const lists: string[][] = []
  let failures = 0
  let nowMs = 0
  const lastGood = new LastGood<{ url: string }>({
    pool: 'model',
    clock: () => nowMs,
    log: collectingLog(log),
    onFound: (engines) => lists.push(engines.map(({ url }) => url)),
    onFailed: () => failures++,
  })
  lastGood.found([{ url: 'a' }])
  nowMs = 5000
  lastGood.failed('away')
  lastGood.failed('away')
  lastGood.confirmed()
  assert.equal(lastGood.ageMs, 5000)
  lastGood.found([{ url: 'a' }])
  assert.equal(lastGood.ageMs, 0)
  assert.deepEqual(lists, [['a']])
  assert.equal(failures, 2)
  assert.deepEqual(
    log.map(({ level, message }) => `${level} ${message.split(':')[0]}`),
    ['info discovery found other engines', 'warn discovery failed', 'info discovery works again'],
  )
})

test('a watched file is seen to change in place, by a move, and by a link swapped far above it', async (t) => {
  const path = folder(t)
  for (const version of ['one', 'two']) {
    mkdirSync(join(path, version))
    writeFileSync(join(path, version, 'list.yaml'), version)
  }
  symlinkSync('one', join(path, '..data'))
  symlinkSync(join('..data', 'list.yaml'), join(path, 'list.yaml'))
  const texts: string[] = []
  const faults: string[] = []
  const watched = new WatchedFile({
    path: join(path, 'list.yaml'),
    pollMs: 5,
    changed: (text) => void texts.push(text),
    failed: (reason) => void faults.push(reason),
  })
  t.after(() => watched.stop())
  watched.start()
  await until(() => texts.length === 1, 'it is read')
  symlinkSync('two', join(path, '..data_tmp'))
  renameSync(join(path, '..data_tmp'), join(path, '..data'))
  await until(() => texts.length === 2, 'the swapped link is seen')
  writeFileSync(join(path, 'two', 'list.yaml'), 'three')
  await until(() => texts.length === 3, 'the written file is seen')
  writeFileSync(join(path, 'new'), 'four')
  renameSync(join(path, 'new'), join(path, 'list.yaml'))
  await until(() => texts.length === 4, 'the moved file is seen')
  rmSync(join(path, 'list.yaml'))
  await until(() => faults.length === 1, 'the missing file is told')
  writeFileSync(join(path, 'list.yaml'), 'four')
  await until(() => texts.length === 5, 'that it is back is told')
  assert.deepEqual(texts, ['one', 'two', 'three', 'four', 'four'])
  assert.equal(faults.length, 1)
})

test('a file lists engines as URLs or as workers; a bad one is a fault with its place', async (t) => {
  const path = join(folder(t), 'engines.yaml')
  writeFileSync(path, '- http://a:1\n- { url: "http://b:1", labels: { zone: x } }\n')
  const told = findings()
  const discovery = fileDiscovery({ path, pollMs: 5 }, parseWorkerList, told)
  t.after(() => discovery.stop())
  discovery.start()
  await until(() => told.lists.length === 1, 'it is read')
  assert.deepEqual(told.lists[0], ['http://a:1', 'http://b:1'])
  for (const [text, pattern] of [
    ['', /expected|must be/i],
    ['- [', /engines\.yaml:\d+:\d+: not valid YAML/],
    ['- ftp://a', /\[0\]\.url: "ftp:\/\/a" is neither http nor https/],
    ['- { url: "http://b:1", zone: x }', /unknown option "zone"|\[0\]/],
  ] as const) {
    const before = told.faults.length
    writeFileSync(path, text)
    await until(() => told.faults.length > before, `"${text}" is told`)
    assert.match(told.faults.at(-1) ?? '', pattern)
  }
  assert.equal(told.lists.length, 1)
  writeFileSync(path, '[]')
  await until(() => told.lists.length === 2, 'an empty list is a list')
  assert.deepEqual(told.lists[1], [])
})
