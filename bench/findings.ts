import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Finding } from '../test/reliability/scenario.ts'
import type { Machine } from './machine.ts'

/** What one scenario found, and where: scenarios can be run again one by one. */
export interface KeptFinding extends Finding {
  readonly number: string
  readonly commit: string
  readonly date: string
  readonly machine: Machine
}

const path = (name: string): string => fileURLToPath(new URL(`results/${name}.json`, import.meta.url))

/** Findings of a bench by the scenario's number; none where it has never run. */
export function keptFindings(name: string): Map<string, KeptFinding> {
  if (!existsSync(path(name))) return new Map()
  const { findings } = JSON.parse(readFileSync(path(name), 'utf8')) as { findings: KeptFinding[] }
  return new Map(findings.map((finding) => [finding.number, finding]))
}

export function keepFindings(name: string, findings: ReadonlyMap<string, KeptFinding>): void {
  const sorted = [...findings.values()].sort((a, b) => a.number.localeCompare(b.number, 'en', { numeric: true }))
  const record = { bench: name, command: `npm run bench ${name}`, findings: sorted }
  writeFileSync(path(name), `${JSON.stringify(record, null, 2)}\n`)
}
