import type Type from 'typebox'
import { Value } from 'typebox/value'

export interface FaultWords {
  /** Where the value itself stands; places within it follow. */
  readonly at?: string
  /** What a key of the value is called. */
  readonly key?: string
}

/**
 * What is wrong with `value`, one line a fault: its place as `pools[0].workers[1].url`, the fault, the remedy. Of a union
 * the branch speaks that the value has the most keys of.
 */
export function faultsOf(schema: Type.TSchema, value: unknown, { at = '', key = 'option' }: FaultWords = {}): string[] {
  const errors = [...Value.Errors(schema, value)]
  const lines = new Set<string>()
  for (const error of errors) {
    // A union reports every branch that failed as well; the line about the union itself says it once.
    if (errors.some((other) => isUnion(other) && error.schemaPath.startsWith(`${other.schemaPath}/anyOf`))) continue
    const words = { at: placeOf(error.instancePath, at), key }
    const found = isUnion(error) ? faultsOfUnion(schema, value, error, words) : [sentence(schema, value, error, words)]
    for (const line of found) if (line !== null) lines.add(line)
  }
  return [...lines]
}

type Fault = ReturnType<typeof Value.Errors>[number]

function isUnion({ keyword }: Fault): boolean {
  return keyword === 'anyOf'
}

/** The parts of a JSON Schema that are looked at. */
interface Shape {
  readonly const?: unknown
  readonly properties?: Readonly<Record<string, unknown>>
  readonly required?: readonly string[]
  readonly anyOf?: readonly Shape[]
}

function faultsOfUnion(schema: Type.TSchema, value: unknown, error: Fault, words: Required<FaultWords>): string[] {
  const branches = shapeAt(schema, error.schemaPath).anyOf ?? []
  const given = valueAt(value, error.instancePath)
  const start = prefixOf(words.at)
  if (branches.length > 0 && branches.every((branch) => 'const' in branch)) {
    return [`${start}${shown(given)} is not one of ${branches.map((branch) => String(branch.const)).join(', ')}`]
  }
  const meant = branchOf(branches, given)
  if (meant !== null) return faultsOf(meant, given, words)
  return [isSecret(error.instancePath) ? `${start}${error.message}` : `${start}${error.message}, not ${shown(given)}`]
}

/**
 * Of the branches for objects the one that the value has the most of: of what it requires, then of what it knows. Null
 * where the value is no object.
 */
function branchOf(branches: readonly Shape[], value: unknown): Shape | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return null
  const given = Object.keys(value)
  const shared = (names: readonly string[]): number => names.filter((name) => given.includes(name)).length
  const rank = ({ required = [], properties = {} }: Shape): number =>
    shared(required) * given.length + shared(Object.keys(properties))
  const [best] = branches
    .filter(({ properties }) => properties !== undefined)
    .sort((one, other) => rank(other) - rank(one))
  return best ?? null
}

function sentence(schema: Type.TSchema, value: unknown, error: Fault, words: Required<FaultWords>): string | null {
  const start = prefixOf(words.at)
  const given = valueAt(value, error.instancePath)
  switch (error.keyword) {
    case 'boolean':
      return null
    case 'additionalProperties': {
      const known = Object.keys(shapeAt(schema, error.schemaPath).properties ?? {})
      return error.params.additionalProperties
        .map((name) => `${start}unknown ${words.key} "${name}"${hint(name, known)} Known here: ${listed(known)}`)
        .join('\n')
    }
    case 'required':
      return error.params.requiredProperties.map((name) => `${start}"${name}" is missing`).join('\n')
    case 'enum':
      return `${start}${shown(given)} is not one of ${error.params.allowedValues.map(String).join(', ')}`
    case 'const':
      return `${start}${shown(given)} is not ${String(error.params.allowedValue)}`
    default:
      return isSecret(error.instancePath) ? `${start}${error.message}` : `${start}${error.message}, not ${shown(given)}`
  }
}

/** `; did you mean "…"?` with the nearest of the known names, where one is near. */
export function hint(name: string, known: readonly string[], otherwise = '.'): string {
  const near = nearest(name, known)
  return near === null ? otherwise : `; did you mean "${near}"?`
}

function listed(names: readonly string[]): string {
  return names.length === 0 ? 'none' : names.join(', ')
}

function prefixOf(place: string): string {
  return place === '' ? '' : `${place}: `
}

/** Whether a value at this place must not be repeated. */
function isSecret(pointer: string): boolean {
  return /\/(password|secret|apiKey|redis\/url)$/.test(pointer)
}

function placeOf(pointer: string, start: string): string {
  return pointer
    .split('/')
    .slice(1)
    .reduce(
      (place, step) => (/^\d+$/.test(step) ? `${place}[${step}]` : place === '' ? step : `${place}.${step}`),
      start,
    )
}

function shapeAt(schema: Type.TSchema, pointer: string): Shape {
  return valueAt(schema, pointer.replace(/^#/, '')) ?? {}
}

function valueAt(value: unknown, pointer: string): unknown {
  let at: unknown = value
  for (const step of pointer.split('/').slice(1)) at = (at as Record<string, unknown> | undefined)?.[step]
  return at
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) as string | undefined
  return text === undefined ? 'nothing' : text.length > 60 ? `${text.slice(0, 57)}…` : text
}

/** The known name with the fewest edits, if it is near enough to be meant. */
export function nearest(name: string, known: readonly string[]): string | null {
  let best: string | null = null
  let least = Math.max(2, Math.floor(name.length / 3)) + 1
  for (const candidate of known) {
    const distance = edits(name.toLowerCase(), candidate.toLowerCase())
    if (distance < least) {
      least = distance
      best = candidate
    }
  }
  return best
}

/** Levenshtein distance. */
function edits(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1
      next.push(Math.min((next[j - 1] ?? 0) + 1, (row[j] ?? 0) + 1, (row[j - 1] ?? 0) + cost))
    }
    row = next
  }
  return row[b.length] ?? 0
}
