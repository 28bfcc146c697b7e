import assert from 'node:assert/strict'
import { test } from 'node:test'
import { provideRedisServer } from '../../scripts/redis-server.ts'

interface Made {
  readonly isRoot?: boolean
  readonly fails?: (line: string, time: number) => boolean
}

/** A machine with these programs, on which commands succeed unless they are named in `fails`, the first time or always. */
function machine(programs: readonly string[], { isRoot = true, fails = () => false }: Made = {}) {
  const present = new Set(programs)
  const ran: string[] = []
  const run = (program: string, args: readonly string[]): boolean => {
    const line = [program, ...args].join(' ')
    ran.push(line)
    if (fails(line, ran.filter((other) => other === line).length)) return false
    if (line.includes(' install ')) present.add('redis-server')
    return true
  }
  return { ran, has: (program: string) => present.has(program), isRoot, run }
}

const install = 'env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server'
const update = 'env DEBIAN_FRONTEND=noninteractive apt-get update'

test('a redis-server that is there is left alone', () => {
  const there = machine(['redis-server', 'apt-get'])
  assert.equal(provideRedisServer(there), null)
  assert.deepEqual(there.ran, [])
})

test('an absent redis-server is installed as root, or by sudo without a password', () => {
  const root = machine(['apt-get'])
  assert.equal(provideRedisServer(root), null)
  assert.deepEqual(root.ran, [install])
  const user = machine(['apt-get', 'sudo'], { isRoot: false })
  assert.equal(provideRedisServer(user), null)
  assert.deepEqual(user.ran, ['sudo -n true', `sudo -n ${install}`])
})

test('lists of packages that are old are renewed once', () => {
  const stale = machine(['apt-get'], { fails: (line, time) => line === install && time === 1 })
  assert.equal(provideRedisServer(stale), null)
  assert.deepEqual(stale.ran, [install, update, install])
})

test('a machine that cannot install it gets one clear error', () => {
  assert.match(provideRedisServer(machine([])) ?? '', /no apt-get/)
  assert.match(provideRedisServer(machine(['apt-get'], { isRoot: false })) ?? '', /takes root/)
  const locked = machine(['apt-get', 'sudo'], { isRoot: false, fails: (line) => line === 'sudo -n true' })
  assert.match(provideRedisServer(locked) ?? '', /takes root/)
  assert.match(provideRedisServer(machine(['apt-get'], { fails: (line) => line === install })) ?? '', /failed/)
})
