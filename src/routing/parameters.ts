import type Type from 'typebox'
import { faultsOf } from '../faults.ts'
import type { PolicyPlugin } from './policy.ts'

/** JSON Schema as far as defaults are concerned: plugins may write it by hand. */
interface Defaults {
  readonly default?: unknown
  readonly properties?: Readonly<Record<string, Defaults>>
}

/** What is left out filled with the schema's defaults. */
export function filledParameters(
  { parameters }: PolicyPlugin,
  given: Readonly<Record<string, unknown>> = {},
): Type.Static<Type.TSchema> {
  return filled(parameters, given)
}

/** Each fault in one sentence with its place within the parameters; none: []. */
export function parameterFaults({ parameters }: PolicyPlugin, value: unknown, at = ''): string[] {
  return faultsOf(parameters, value, { at, key: 'parameter' })
}

function filled(schema: Defaults, given: unknown): unknown {
  const value = given === undefined ? structuredClone(schema.default) : given
  if (schema.properties === undefined || typeof value !== 'object' || value === null) return value
  const object: Record<string, unknown> = { ...value }
  for (const [name, property] of Object.entries(schema.properties)) {
    const inner = filled(property, object[name])
    if (inner !== undefined) object[name] = inner
  }
  return object
}
