import assert from 'node:assert/strict'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { providePython } from '../../scripts/python.ts'

interface Made {
  /** Commands that fail, the first time or always. */
  readonly fails?: (line: string, time: number) => boolean
}

/** A machine with these programs, whose commands do nothing but succeed or fail. */
function machine(programs: readonly string[], { fails = () => false }: Made = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-python-'))
  const place = { folder: join(folder, 'venv'), requirements: join(folder, 'requirements.txt') }
  writeFileSync(place.requirements, 'redis==1.0\n')
  const present = new Set(programs)
  const ran: string[] = []
  const run = (program: string, args: readonly string[]): boolean => {
    const line = [program, ...args].join(' ').replaceAll(`${folder}/`, '')
    ran.push(line)
    if (fails(line, ran.filter((other) => other === line).length)) return false
    if (line.includes(' install ')) present.add('python3')
    if (line.includes('-m venv')) present.add(join(place.folder, 'bin', 'python'))
    return true
  }
  const there = { has: (program: string) => present.has(program), isRoot: true, run }
  return { ran, place, provide: () => providePython(there, place) }
}

const venv = 'python3 -m venv venv'
const pip = 'venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt'
const apt = 'env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv'

test('an environment is made once, and again when its packages are others', () => {
  const { ran, place, provide } = machine(['python3'])
  assert.equal(provide(), null)
  assert.deepEqual(ran, [venv, pip])
  assert.equal(provide(), null)
  assert.equal(ran.length, 2)
  writeFileSync(place.requirements, 'redis==2.0\n')
  assert.equal(provide(), null)
  assert.deepEqual(ran.slice(2), [venv, pip])
})

test('an absent Python, and one without its module venv, are installed', () => {
  const absent = machine(['apt-get'])
  assert.equal(absent.provide(), null)
  assert.deepEqual(absent.ran, [apt, venv, pip])
  const without = machine(['apt-get', 'python3'], { fails: (line, time) => line === venv && time === 1 })
  assert.equal(without.provide(), null)
  assert.deepEqual(without.ran, [venv, apt, venv, pip])
})

test('a machine that cannot have it gets one clear error', () => {
  assert.match(machine([]).provide() ?? '', /need python3 .* no apt-get/)
  const offline = machine(['python3'], { fails: (line) => line === pip })
  assert.match(offline.provide() ?? '', /pip cannot install/)
  assert.match(offline.provide() ?? '', /pip cannot install/, 'and the next run tries again')
})
