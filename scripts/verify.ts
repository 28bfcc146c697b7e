/** The whole test suite: what CI runs, on any machine, after the install. Ends with the first step that fails. */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { thisMachine } from './machine.ts'
import { providePython } from './python.ts'
import { provideRedisServer } from './redis-server.ts'

const root = fileURLToPath(new URL('..', import.meta.url))

const steps = [
  { name: 'types, lint, format, imports', command: ['npm', 'run', '--silent', 'check'] },
  { name: 'tests', command: ['npm', 'test', '--silent'] },
] as const

const missing = provideRedisServer(thisMachine()) ?? providePython(thisMachine())
if (missing !== null) {
  console.error(missing)
  process.exit(1)
}

for (const { name, command } of steps) {
  const startMs = performance.now()
  console.log(`\n== ${name}`)
  const [program, ...args] = command
  const { status } = spawnSync(program, args, { cwd: root, stdio: 'inherit' })
  console.log(`== ${name}: ${status === 0 ? 'ok' : 'FAILED'} in ${((performance.now() - startMs) / 1000).toFixed(1)} s`)
  if (status !== 0) process.exit(1)
}
