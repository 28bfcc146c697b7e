import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { checkConfig } from './commands/check-config.ts'
import type { Command, CommandIo } from './commands/command.ts'
import { explain } from './commands/explain.ts'
import { hashKey } from './commands/hash-key.ts'
import { newPolicy } from './commands/new-policy.ts'
import { replay } from './commands/replay.ts'
import { serve } from './commands/serve.ts'
import { simulate } from './commands/simulate.ts'
import { size } from './commands/size.ts'
import { nearest } from './faults.ts'
import { RouterError } from './errors.ts'

const commands: readonly Command[] = [serve, checkConfig, explain, simulate, hashKey, newPolicy, size, replay]

/** Runs the command line; the answer is the exit code: 0 done, 1 failed, 2 not understood. */
export async function main(argv: readonly string[]): Promise<number> {
  const io = processIo()
  const [name, ...rest] = argv
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    io.out(help())
    return name === undefined ? 2 : 0
  }
  if (name === '--version' || name === '-V') {
    io.out(version())
    return 0
  }
  const command = commands.find((candidate) => candidate.name === name)
  if (command === undefined) {
    const near = nearest(
      name,
      commands.map((candidate) => candidate.name),
    )
    io.error(`warmroute: unknown command "${name}"${near === null ? '' : `; did you mean "${near}"?`}\n\n${help()}`)
    return 2
  }
  if (rest.includes('--help') || rest.includes('-h')) {
    io.out(`${command.usage}\n`)
    return 0
  }
  return run(command, rest, io)
}

async function run(command: Command, argv: readonly string[], io: CommandIo): Promise<number> {
  try {
    return await command.run(argv, io)
  } catch (error) {
    const { code } = (error ?? {}) as { code?: string }
    if (error instanceof RouterError || code?.startsWith('ERR_PARSE_ARGS') === true) {
      io.error(`warmroute ${command.name}: ${(error as Error).message}`)
      return 1
    }
    throw error
  }
}

function help(): string {
  const width = Math.max(...commands.map(({ name }) => name.length))
  return [
    'Usage: warmroute COMMAND [options]',
    '',
    ...commands.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`),
    '',
    '"warmroute COMMAND --help" tells the options of a command.',
  ].join('\n')
}

function version(): string {
  const file = new URL('../package.json', import.meta.url)
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
}

function processIo(): CommandIo {
  return {
    out: (text) => process.stdout.write(text.endsWith('\n') ? text : `${text}\n`),
    error: (text) => process.stderr.write(text.endsWith('\n') ? text : `${text}\n`),
    environment: process.env,
    ended: new Promise((resolve) => {
      const signals = ['SIGINT', 'SIGTERM'] as const
      for (const signal of signals) {
        process.once(signal, () => {
          resolve(signal)
          // A second one, whichever it is, ends the process without waiting.
          for (const second of signals) {
            process.removeAllListeners(second)
            process.once(second, () => process.exit(128 + constants.signals[second]))
          }
        })
      }
    }),
    onHangup: (listener) => process.on('SIGHUP', listener),
    ...(process.stderr.isTTY ? { progress: (text: string) => void process.stderr.write(text) } : {}),
  }
}
