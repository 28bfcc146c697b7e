import { loadConfig } from '../config/load.ts'
import { printedConfig } from '../config/print.ts'
import { RouterError } from '../errors.ts'
import { checkPolicies, policyNotes } from '../main.ts'
import type { Command } from './command.ts'

export const checkConfig: Command = {
  name: 'check-config',
  summary: 'print the full effective config, or every fault in it',
  usage: 'warmroute check-config FILE',
  async run(argv, io) {
    const [file, ...rest] = argv
    if (file === undefined || rest.length > 0)
      throw new RouterError('CONFIG_INVALID', 'check-config takes one file: warmroute check-config FILE')
    const config = loadConfig({ file, environment: io.environment })
    await checkPolicies(config)
    for (const note of policyNotes(config)) io.error(note)
    io.out(printedConfig(config))
    return 0
  },
}
