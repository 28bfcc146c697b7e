#!/usr/bin/env node
// Plain JavaScript that any Node can read: finds a Node new enough to run Warmroute, or says what to do.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const least = [22, 19]
const root = dirname(dirname(fileURLToPath(import.meta.url)))

// A checkout runs its sources, so that an old build is never run by mistake; the package ships the build only.
const entry = existsSync(join(root, 'src', 'cli.ts')) ? join(root, 'src', 'cli.ts') : join(root, 'dist', 'cli.js')

if (isEnough(process.versions.node)) {
  const { main } = await import(entry)
  process.exitCode = await main(process.argv.slice(2))
} else {
  const other = installedNode()
  if (other === null) {
    console.error(`warmroute needs Node ${least.join('.')} or newer, and this is ${process.versions.node}.`)
    console.error('Install a newer Node, or run "npm install" here: it brings one.')
    process.exitCode = 1
  } else {
    const child = spawn(other, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: 'inherit' })
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
    child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGINT' ? 130 : 143)))
  }
}

function isEnough(version) {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  return major > least[0] || (major === least[0] && minor >= least[1])
}

/** The Node that the `node` package brought, if it is installed. */
function installedNode() {
  try {
    const binary = join(dirname(createRequire(import.meta.url).resolve('node/package.json')), 'bin', 'node')
    return existsSync(binary) ? binary : null
  } catch {
    return null
  }
}
