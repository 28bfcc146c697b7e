import { installPackages, type Machine } from './machine.ts'

/** The tests run against a real redis-server: found, or installed, or one clear error is returned. */
export function provideRedisServer(machine: Machine): string | null {
  if (machine.has('redis-server')) return null
  const wanted = 'The tests need redis-server on the PATH (7.0 or later)'
  const missing = installPackages(machine, ['redis-server'], wanted)
  if (missing !== null || machine.has('redis-server')) return missing
  return `${wanted}; apt-get installed the package, but the program is not there.`
}
