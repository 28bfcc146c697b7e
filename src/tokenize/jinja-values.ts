import { PythonNumber } from './exact-json.ts'
import { strip } from './python-strip.ts'

/**
 * Jinja's operations on plain values, equal to those of the interpreter (@huggingface/jinja 0.5) wherever they return. What is
 * rare or would be an error there throws Unsupported here, and the interpreter decides. Integers are numbers without a
 * fraction; objects are plain objects or Maps; absent is undefined, Jinja's none is null.
 */
export type Value = unknown

/** This value or operation is left to the interpreter. */
export class Unsupported extends Error {}

/** What `namespace(…)` makes: variables that a loop's body can set for those outside. */
export class Namespace {
  readonly values: Map<string, Value>

  constructor(values: Map<string, Value>) {
    this.values = values
  }
}

/** The variable `loop`. */
export class Loop {
  readonly items: readonly Value[]
  index0 = 0

  constructor(items: readonly Value[]) {
    this.items = items
  }

  get(name: string): Value {
    const { items, index0 } = this
    switch (name) {
      case 'index':
        return index0 + 1
      case 'index0':
        return index0
      case 'revindex':
        return items.length - index0
      case 'revindex0':
        return items.length - index0 - 1
      case 'first':
        return index0 === 0
      case 'last':
        return index0 === items.length - 1
      case 'length':
        return items.length
      case 'previtem':
        return items[index0 - 1]
      case 'nextitem':
        return items[index0 + 1]
      default:
        throw new Unsupported(`loop.${name}`)
    }
  }
}

type Dictionary = Readonly<Record<string, unknown>> | ReadonlyMap<string, unknown>

export function isDictionary(value: Value): value is Dictionary {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof PythonNumber || value instanceof Namespace || value instanceof Loop)
  )
}

export function entriesOf(value: Dictionary): [string, Value][] {
  if (value instanceof Map) return [...(value as ReadonlyMap<string, unknown>)]
  return Object.entries(value).map(([key, item]) => [key, item ?? null])
}

export function has(value: Dictionary, key: string): boolean {
  return value instanceof Map ? value.has(key) : Object.hasOwn(value, key)
}

export function truth(value: Value): boolean {
  if (typeof value !== 'object' || value === null) return Boolean(value)
  if (Array.isArray(value)) return value.length > 0
  if (value instanceof Namespace) return true
  if (!isDictionary(value)) throw new Unsupported('truth')
  return value instanceof Map ? value.size > 0 : Object.keys(value).length > 0
}

const dictionaryMethods = new Set(['get', 'items', 'keys', 'values', 'dictsort'])

/** `object.name` and `object['name']`, where it is not called. */
export function attribute(object: Value, name: string): Value {
  if (typeof object === 'object' && object !== null) {
    if (Array.isArray(object)) return name === 'length' ? object.length : undefined
    if (object instanceof Namespace) return object.values.get(name)
    if (object instanceof Loop) return object.get(name)
    if (object instanceof PythonNumber) return undefined
    if (object instanceof Map) {
      if (object.has(name)) return (object as ReadonlyMap<string, unknown>).get(name) ?? null
    } else if (Object.hasOwn(object, name)) return (object as Record<string, unknown>)[name] ?? null
    if (dictionaryMethods.has(name)) throw new Unsupported(name)
    return undefined
  }
  if (typeof object !== 'string') return undefined
  if (name === 'length') return object.length
  throw new Unsupported(name)
}

/** `object[key]` for any key. */
export function element(object: Value, key: Value): Value {
  if (typeof key === 'string') return attribute(object, key)
  if (typeof key !== 'number' || !Number.isInteger(key)) throw new Unsupported('key')
  if (Array.isArray(object) || typeof object === 'string') return object.at(key) as Value
  throw new Unsupported('index')
}

/** Python's slice of a list. */
export function slice(list: Value, start: Value, stop: Value, step: Value): Value[] {
  const stride = step ?? 1
  if (!Array.isArray(list) || typeof stride !== 'number' || stride === 0) throw new Unsupported('slice')
  const forwards = stride > 0
  const first = bound(start, forwards ? 0 : list.length - 1, forwards, list.length)
  const end = bound(stop, forwards ? list.length : -1, forwards, list.length)
  if (stride === 1) return list.slice(first, Math.max(first, end))
  const result: Value[] = []
  for (let at = first; forwards ? at < end : at > end; at += stride) result.push(list[at])
  return result
}

function bound(value: Value, absent: number, forwards: boolean, length: number): number {
  if (value === undefined) return absent
  if (typeof value !== 'number' || !Number.isInteger(value)) throw new Unsupported('slice')
  const [least, most] = forwards ? [0, length] : [-1, length - 1]
  return Math.min(most, Math.max(least, value < 0 ? length + value : value))
}

/** How a value that is text, a number or a truth value is printed and joined to text. */
export function printed(value: Value): string {
  if (typeof value === 'string') return value
  if (typeof value === 'number' || typeof value === 'boolean') return String(value)
  throw new Unsupported('print')
}

/** `a + b` */
export function add(a: Value, b: Value): Value {
  if (typeof a === 'number' && typeof b === 'number') return integer(a, b, a + b)
  if (typeof a === 'string' || typeof b === 'string') return printed(a) + printed(b)
  if (Array.isArray(a) && Array.isArray(b)) return [...(a as Value[]), ...(b as Value[])]
  throw new Unsupported('+')
}

export function arithmetic(operator: string, a: Value, b: Value): Value {
  if (typeof a !== 'number' || typeof b !== 'number') throw new Unsupported(operator)
  switch (operator) {
    case '-':
      return integer(a, b, a - b)
    case '*':
      return integer(a, b, a * b)
    case '//':
      return integer(a, b, Math.floor(a / b))
    case '%':
      return integer(a, b, a % b)
    case '<':
      return a < b
    case '>':
      return a > b
    case '<=':
      return a <= b
    case '>=':
      return a >= b
    default:
      throw new Unsupported(operator)
  }
}

/** The interpreter tells 1 from 1.0 by a class; numbers with a fraction are left to it. */
function integer(a: number, b: number, result: number): number {
  if (Number.isInteger(a) && Number.isInteger(b) && Number.isSafeInteger(result)) return result
  throw new Unsupported('fraction')
}

/** `a == b`, which the interpreter decides as JavaScript's loose equality does. */
export function equal(a: Value, b: Value): boolean {
  if (a === undefined || a === null || b === undefined || b === null) return (a ?? null) === (b ?? null)
  if (typeof a === 'object' || typeof b === 'object') throw new Unsupported('==')
  return typeof a === typeof b ? a === b : Number(a) === Number(b)
}

/** `a in b` */
export function contains(a: Value, b: Value): boolean {
  if (b === undefined) return false
  if (a === undefined || a === null || b === null || typeof a === 'object') throw new Unsupported('in')
  if (Array.isArray(b)) return b.includes(a)
  if (typeof a !== 'string') throw new Unsupported('in')
  if (typeof b === 'string') return b.includes(a)
  if (isDictionary(b)) return has(b, a)
  throw new Unsupported('in')
}

/** `value is name` */
export function test(name: string, value: Value): boolean {
  switch (name) {
    case 'defined':
      return value !== undefined
    case 'undefined':
      return value === undefined
    case 'none':
      return value === null
    case 'true':
      return value === true
    case 'false':
      return value === false
    case 'boolean':
      return typeof value === 'boolean'
    case 'string':
      return typeof value === 'string'
    case 'number':
      return typeof value === 'number' || value instanceof PythonNumber
    case 'mapping':
      return isDictionary(value)
    case 'iterable':
      return typeof value === 'string' || Array.isArray(value)
    case 'sequence':
      return typeof value === 'string' || Array.isArray(value) || isDictionary(value)
    default:
      throw new Unsupported(name)
  }
}

/** `value | name` */
export function filter(name: string, value: Value): Value {
  switch (name) {
    case 'safe':
      return value
    case 'tojson':
      return json(value, 0, 0)
    case 'length':
      if (typeof value === 'string' || Array.isArray(value)) return value.length
      if (isDictionary(value)) return value instanceof Map ? value.size : Object.keys(value).length
      break
    case 'trim':
      if (typeof value === 'string') return value.trim()
      break
    case 'upper':
      if (typeof value === 'string') return value.toUpperCase()
      break
    case 'lower':
      if (typeof value === 'string') return value.toLowerCase()
      break
    case 'string':
      if (typeof value === 'string') return value
      break
    case 'list':
      if (Array.isArray(value)) return value as Value[]
      break
    case 'first':
      if (Array.isArray(value) && value.length > 0) return value[0] as Value
      break
    case 'last':
      if (Array.isArray(value) && value.length > 0) return value.at(-1) as Value
      break
    case 'items':
      if (isDictionary(value) && !has(value, 'items')) return entriesOf(value)
      break
  }
  throw new Unsupported(name)
}

/** `object.name(…)` with plain arguments. */
export function method(object: Value, name: string, given: readonly Value[]): Value {
  const [first] = given
  if (typeof object === 'string') {
    if (name === 'strip' || name === 'lstrip' || name === 'rstrip') {
      const characters = first ?? null
      if (characters === null || typeof characters === 'string') return strip(object, name, characters)
    }
    if (name === 'upper') return object.toUpperCase()
    if (name === 'lower') return object.toLowerCase()
    if (given.length === 1 && typeof first === 'string') {
      if (name === 'startswith') return object.startsWith(first)
      if (name === 'endswith') return object.endsWith(first)
      if (name === 'split' && first !== '') return object.split(first)
    }
  } else if (isDictionary(object) && !has(object, name)) {
    if (name === 'items') return entriesOf(object)
    if (name === 'keys') return entriesOf(object).map(([key]) => key)
    if (name === 'values') return entriesOf(object).map(([, value]) => value)
    if (name === 'get' && typeof first === 'string') {
      return has(object, first) ? attribute(object, first) : (given[1] ?? null)
    }
  }
  throw new Unsupported(name)
}

/** Python's `json.dumps` without escaping of what is not ASCII. */
export function json(value: Value, indent: number, depth: number): string {
  if (typeof value !== 'object' || value === null || value instanceof PythonNumber) {
    return value === undefined ? 'null' : JSON.stringify(value)
  }
  const list = Array.isArray(value)
  if (!list && !isDictionary(value)) throw new Unsupported('tojson')
  const items = list
    ? value.map((item) => json(item, indent, depth + 1))
    : entriesOf(value).map(([key, item]) => `${JSON.stringify(key)}: ${json(item, indent, depth + 1)}`)
  const [open, close] = list ? '[]' : '{}'
  if (indent === 0 || items.length === 0) return `${open}${items.join(', ')}${close}`
  const outer = '\n' + ' '.repeat(indent * depth)
  const inner = outer + ' '.repeat(indent)
  return `${open}${inner}${items.join(',' + inner)}${outer}${close}`
}
