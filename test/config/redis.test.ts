import assert from 'node:assert/strict'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { loadConfig, type ConfigSources } from '../../src/config/load.ts'
import { printedConfig } from '../../src/config/print.ts'
import { RouterError } from '../../src/errors.ts'

const smallest = 'pools: [{ model: m, workers: [{ url: "http://a:1" }] }]\n'

function fileWith(redis: string): string {
  const file = join(mkdtempSync(join(tmpdir(), 'warmroute-config-')), 'config.yaml')
  writeFileSync(file, `redis: ${redis}\n${smallest}`)
  return file
}

function faultOf(redis: string, sources: ConfigSources = {}): string {
  try {
    loadConfig({ file: fileWith(redis), ...sources })
  } catch (error) {
    if (error instanceof RouterError && error.code === 'CONFIG_INVALID') return error.message
    throw error
  }
  return ''
}

test('a URL is all that Redis needs', () => {
  const { redis } = loadConfig({ file: fileWith('{ url: "redis://10.0.0.7:6379/3" }') })
  assert.equal(redis?.prefix, 'warmroute')
  assert.equal(redis.required, false)
  assert.equal(redis.leaseMs, 1200)
  const flags = { 'worker-urls': ['http://a:1'], 'redis-url': 'rediss://cache:6380' }
  assert.equal(loadConfig({ flags }).redis?.url, 'rediss://cache:6380')
  const environment = { WARMROUTE_REDIS_URL: 'redis://cache', WARMROUTE_REDIS_PASSWORD: 'pw' }
  assert.equal(loadConfig({ flags: { 'worker-urls': ['http://a:1'] }, environment }).redis?.password, 'pw')
})

test('without it everything stays in the process', () => {
  assert.equal(loadConfig({ flags: { 'worker-urls': ['http://a:1'] } }).redis, undefined)
})

test('Redis is reached in one of three ways', () => {
  assert.match(faultOf('{}'), /redis: give one of "url", "sentinel" and "cluster"$/)
  const both = '{ url: "redis://a", cluster: { nodes: ["a:1"] } }'
  assert.match(faultOf(both), /redis: give one of .*, not "url" and "cluster"/)
  assert.equal(faultOf('{ sentinel: { name: main, nodes: ["a:26379", "[::1]:26379"] }, database: 2 }'), '')
  assert.match(faultOf('{ sentinel: { name: main, nodes: ["a"] } }'), /redis\.sentinel\.nodes\[0\]/)
})

test('a cluster has one database', () => {
  const cluster = (more: string): string => faultOf(`{ cluster: { nodes: ["a:1", "b:1"] }${more} }`)
  assert.equal(cluster(''), '')
  assert.equal(cluster(', database: 0'), '')
  assert.match(cluster(', database: 4'), /redis\.database: a Redis Cluster has only database 0, not 4/)
})

test('a URL of another form is refused, and its password not repeated', () => {
  const faults = {
    'http://:planted@a': /no protocol of Redis/,
    'a b:planted': /not a URL/,
    'redis://:planted@a/db': /only the number of a database/,
    'redis://:planted@a/1?x=planted': /options do not stand in the URL/,
    'redis://planted@a': /a user needs its password/,
    'redis://:planted%@a': /begins no escape/,
  }
  for (const [url, fault] of Object.entries(faults)) {
    const message = faultOf(`{ url: "${url}" }`)
    assert.match(message, fault)
    assert.doesNotMatch(message, /planted/)
  }
  assert.match(faultOf('{ url: "redis://:a@h", password: b }'), /redis\.password: stands in the URL already/)
  assert.match(faultOf('{ url: "redis://h/1", database: 1 }'), /redis\.database: stands in the URL already/)
  assert.doesNotMatch(faultOf('{ url: "redis://h", password: 424242 }'), /424242/)
})

test('keys share one hash tag, which the prefix must not break', () => {
  for (const prefix of ['a{b}', 'a b', ''])
    assert.match(faultOf(`{ url: "redis://h", prefix: "${prefix}" }`), /redis\.prefix/)
})

test('certificates go with their keys, and their paths are relative to the file', () => {
  assert.match(faultOf('{ url: "rediss://h", tls: { cert: a.pem } }'), /redis\.tls: "cert" and "key" go together/)
  const file = fileWith('{ url: "rediss://h", tls: { ca: ca.pem } }')
  assert.equal(loadConfig({ file }).redis?.tls?.ca, join(dirname(file), 'ca.pem'))
})

test('the printed config shows no password of Redis', () => {
  const shown = (redis: string): string => printedConfig(loadConfig({ file: fileWith(redis) }))
  const url = shown('{ url: "redis://user:planted1@a:1/2" }')
  assert.match(url, /redis:\/\/a:1\/2/)
  const sentinel = shown('{ sentinel: { name: m, nodes: ["a:1"], password: planted2 }, password: planted3 }')
  assert.match(sentinel, /password: \(hidden\)/)
  assert.doesNotMatch(url + sentinel, /planted/)
})
