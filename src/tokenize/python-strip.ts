import type { RuntimeClass, RuntimeValue } from './jinja.ts'

export type StripName = 'strip' | 'lstrip' | 'rstrip'

/** What Python's `str.strip` removes: JavaScript's `trim` lacks U+001C to U+001F and U+0085, and takes U+FEFF. */
const space = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/

/** Python's `str.strip`, `str.lstrip` and `str.rstrip`. @param characters those to remove; white space if null */
export function strip(text: string, name: StripName, characters: string | null): string {
  const goes = (character: string): boolean => characters?.includes(character) ?? space.test(character)
  let start = 0
  let end = text.length
  if (name !== 'rstrip') while (start < end && goes(characterAt(text, start))) start += characterAt(text, start).length
  if (name !== 'lstrip')
    while (end > start && goes(characterBefore(text, end))) end -= characterBefore(text, end).length
  return text.slice(start, end)
}

function characterAt(text: string, at: number): string {
  return String.fromCodePoint(text.codePointAt(at) ?? 0)
}

function characterBefore(text: string, end: number): string {
  const pair = end > 1 ? characterAt(text, end - 2) : ''
  return pair.length === 2 ? pair : text.charAt(end - 1)
}

/**
 * Teaches the template library's strings to strip as Python's: its own (version 0.5) strip white space whatever they are told
 * to strip, so that Qwen3's `content.lstrip('\n')` would take the spaces that an answer begins with.
 */
export function stripAsPython(stringClass: RuntimeClass, functionClass: RuntimeClass): void {
  const prototype = (stringClass as unknown as { readonly prototype: object }).prototype
  const own = Object.getOwnPropertyDescriptor(prototype, 'builtins')
  if (own?.get === undefined) throw new Error('The template library has changed: its strings have no builtins.')
  const known = new WeakSet<object>()
  Object.defineProperty(prototype, 'builtins', {
    configurable: true,
    get(this: RuntimeValue): Map<string, RuntimeValue> {
      const builtins = own.get?.call(this) as Map<string, RuntimeValue>
      if (known.has(builtins)) return builtins
      known.add(builtins)
      for (const name of ['strip', 'lstrip', 'rstrip'] as const) {
        const method = ([characters]: readonly RuntimeValue[]): RuntimeValue =>
          new stringClass(strip(String(this.value), name, charactersOf(characters)))
        builtins.set(name, new functionClass(method))
      }
      return builtins
    },
  })
}

function charactersOf(value: RuntimeValue | undefined): string | null {
  const given = value?.value ?? null
  if (given !== null && typeof given !== 'string') throw new Error('strip arg must be None or str')
  return given
}
