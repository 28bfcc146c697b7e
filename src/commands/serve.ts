import { parseArgs } from 'node:util'
import { nearest } from '../faults.ts'
import { environmentName, flags } from '../config/flags.ts'
import { loadConfig } from '../config/load.ts'
import type { Config } from '../config/schema.ts'
import { RouterError } from '../errors.ts'
import { startRouter } from '../main.ts'
import type { Command } from './command.ts'

export const serve: Command = {
  name: 'serve',
  summary: 'route OpenAI requests to the engines',
  usage: `warmroute serve [--config FILE] [--worker-urls URL…] [--model-path DIR] [--policy NAME] …

  --config FILE                       YAML config (docs/configuration.md); flags win over the environment over the file
${flags.map((flag) => `  --${`${flag.name} ${flag.kind === 'integer' ? 'N' : flag.kind === 'list' ? 'X…' : 'X'}`.padEnd(34)}${flag.help}  [${environmentName(flag)}]`).join('\n')}`,
  async run(argv, io) {
    const { config: named, ...given } = serveFlags(argv)
    const file = typeof named === 'string' ? named : undefined
    const load = (): Config => loadConfig({ file, flags: given, environment: io.environment })
    const router = await startRouter(load(), { source: { file: file ?? null, load } })
    // Without a file there is nothing to read again, and a terminal that is closed ends the process as usual.
    if (file !== undefined) io.onHangup(() => void router.reload())
    io.error(`warmroute: serving on ${router.publicUrl}, admin on ${router.adminUrl}`)
    const signal = await io.ended
    io.error(`warmroute: ${signal}: draining`)
    await router.stop()
    return 0
  },
}

/** Values by flag name. Throws RouterError CONFIG_INVALID for an unknown flag, naming the nearest. */
export function serveFlags(argv: readonly string[]): Record<string, string | readonly string[] | undefined> {
  const options = Object.fromEntries(
    [...flags.map(({ name, kind }) => [name, kind] as const), ['config', 'text'] as const].map(([name, kind]) => [
      name,
      { type: 'string' as const, multiple: kind === 'list' },
    ]),
  )
  try {
    return parseArgs({ args: spread(argv), options, allowPositionals: false }).values
  } catch (cause) {
    const unknown = argv.find(
      (word) => word.startsWith('--') && options[word.slice(2).split('=')[0] ?? ''] === undefined,
    )
    const near = unknown === undefined ? null : nearest(unknown.slice(2), Object.keys(options))
    const hint = near === null ? '; "warmroute serve --help" lists the flags' : `; did you mean --${near}?`
    throw new RouterError(
      'CONFIG_INVALID',
      `${cause instanceof Error ? (cause.message.split('. ')[0] ?? '') : String(cause)}${hint}`,
    )
  }
}

/** `--worker-urls A B C` as the parser wants it: one flag a value. */
function spread(argv: readonly string[]): string[] {
  const lists = new Set(flags.filter(({ kind }) => kind === 'list').map(({ name }) => `--${name}`))
  const words: string[] = []
  let list: string | null = null
  for (const word of argv) {
    if (word.startsWith('--')) {
      list = lists.has(word) ? word : null
      if (list === null) words.push(word)
    } else if (list !== null) words.push(list, word)
    else words.push(word)
  }
  return words
}
