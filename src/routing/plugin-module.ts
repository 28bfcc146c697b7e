import { registerHooks } from 'node:module'
import type { PolicyPlugin } from './policy.ts'

/** What `warmroute` offers to plugins: a plugin means the router that loads it, wherever it lies and however that was installed. */
const offered: ReadonlyMap<string, string> = new Map([
  ['warmroute', ownModule('../index')],
  ['warmroute/contract', ownModule('./contract/contract')],
])
let areOffered = false

/** Every policy plugin that the module at a URL exports, by default or by name, alone or in lists. */
export async function importPolicies(url: string): Promise<PolicyPlugin[]> {
  if (!areOffered) {
    registerHooks({
      resolve(name, context, next) {
        const own = offered.get(name)
        return own === undefined ? next(name, context) : { url: own, shortCircuit: true }
      },
    })
    areOffered = true
  }
  return policiesIn((await import(url)) as object)
}

/** In the sources or in the build, as this file is. */
function ownModule(place: string): string {
  return new URL(place + (import.meta.url.endsWith('.ts') ? '.ts' : '.js'), import.meta.url).href
}

function policiesIn(module: object): PolicyPlugin[] {
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
