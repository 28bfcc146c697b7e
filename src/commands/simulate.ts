import { runSimulate, simulateUsage } from '../simulator/command.ts'
import type { Command } from './command.ts'

export const simulate: Command = {
  name: 'simulate',
  summary: 'run simulated engines, for trying things out without a GPU',
  usage: simulateUsage,
  run: runSimulate,
}
