import type { Command } from './command.ts'
export const simulate: Command = { name: 'simulate', summary: 'run simulated vLLM engines', usage: '', run: () => Promise.resolve(1) }
