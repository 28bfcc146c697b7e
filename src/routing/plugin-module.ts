import type { PolicyPlugin } from './policy.ts'

/** Every policy plugin that a module exports, by default or by name, alone or in lists. */
export function policiesIn(module: object): PolicyPlugin[] {
  return [...new Set(Object.values(module).flat().filter(isPolicyPlugin))]
}

function isPolicyPlugin(value: unknown): value is PolicyPlugin {
  if (typeof value !== 'object' || value === null) return false
  const { kind, type, create } = value as Partial<PolicyPlugin>
  return (
    (kind === 'filter' || kind === 'fallback' || kind === 'scorer' || kind === 'picker') &&
    typeof type === 'string' &&
    typeof create === 'function'
  )
}
