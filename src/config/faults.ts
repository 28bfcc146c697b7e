import type Type from 'typebox'
import { Value } from 'typebox/value'

/** What is wrong with `value`, one line a fault: its place as `pools[0].workers[1].url`, the fault, the remedy. */
export function faultsOf(schema: Type.TSchema, value: unknown): string[] {
  const errors = [...Value.Errors(schema, value)]
  const lines: string[] = []
  for (const error of errors) {
    // A union reports every branch that failed as well; the line about the union itself says it once.
    if (
      errors.some(
        (other) =>
          other.keyword === 'anyOf' && other !== error && error.schemaPath.startsWith(`${other.schemaPath}/anyOf`),
      )
    )
      continue
    const line = sentence(schema, value, error)
    if (line !== null && !lines.includes(line)) lines.push(line)
  }
  return lines
}

type Fault = ReturnType<typeof Value.Errors>[number]

function sentence(schema: Type.TSchema, value: unknown, error: Fault): string | null {
  const place = placeOf(error.instancePath)
  const at = place === '' ? '' : `${place}: `
  switch (error.keyword) {
    case 'boolean':
      return null
    case 'additionalProperties': {
      const known = Object.keys(schemaAt(schema, error.schemaPath)?.properties ?? {})
      return error.params.additionalProperties
        .map((name) => {
          const near = nearest(name, known)
          return `${at}unknown option "${name}"${near === null ? '' : `; did you mean "${near}"?`} Known here: ${known.join(', ')}`
        })
        .join('\n')
    }
    case 'required':
      return error.params.requiredProperties.map((name) => `${at}"${name}" is missing`).join('\n')
    case 'enum':
      return `${at}${shown(valueAt(value, error.instancePath))} is not one of ${error.params.allowedValues.map(String).join(', ')}`
    default:
      if (isSecret(error.instancePath)) return `${at}${error.message}`
      return `${at}${error.message}, not ${shown(valueAt(value, error.instancePath))}`
  }
}

/** Whether a value at this place must not be repeated. */
function isSecret(pointer: string): boolean {
  return /\/(password|secret|apiKey|redis\/url)$/.test(pointer)
}

function placeOf(pointer: string): string {
  return pointer
    .split('/')
    .slice(1)
    .reduce((place, step) => (/^\d+$/.test(step) ? `${place}[${step}]` : place === '' ? step : `${place}.${step}`), '')
}

function schemaAt(schema: Type.TSchema, pointer: string): { properties?: Record<string, unknown> } | undefined {
  return valueAt(schema, pointer.replace(/^#/, '')) as { properties?: Record<string, unknown> } | undefined
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
