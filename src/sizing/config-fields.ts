import { RouterError } from '../errors.ts'

/** Reads the fields of one JSON object, and says of each fault which field it is in. Null counts as absent, as in Python. */
export class ConfigFields {
  readonly #values: Readonly<Record<string, unknown>>
  /** Shown in front of a field's name: the file, and where the object lies in it. */
  readonly #place: string
  readonly #defaults: Readonly<Record<string, number>>
  /** What was taken for granted, one sentence each. */
  readonly notes: string[]

  constructor(
    values: Readonly<Record<string, unknown>>,
    place: string,
    options: { defaults?: Readonly<Record<string, number>>; notes?: string[] } = {},
  ) {
    this.#values = values
    this.#place = place
    this.#defaults = options.defaults ?? {}
    this.notes = options.notes ?? []
  }

  has(name: string): boolean {
    return (this.#values[name] ?? null) !== null
  }

  /** A whole number above zero; where it is absent the model family's default, which is noted. */
  integer(name: string, fallback?: number): number {
    const value = this.#values[name] ?? null
    if (value !== null) {
      if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) return value
      return this.fault(name, 'a whole number above zero')
    }
    if (fallback !== undefined) return fallback
    const byFamily = this.#defaults[name]
    if (byFamily === undefined) return this.fault(name, 'a whole number above zero')
    this.note(`${name} is absent: ${byFamily}, the default of this model type`)
    return byFamily
  }

  optionalInteger(name: string): number | null {
    return this.has(name) || this.#defaults[name] !== undefined ? this.integer(name) : null
  }

  /** A whole number of at least zero. */
  count(name: string, fallback: number): number {
    return this.#values[name] === 0 ? 0 : this.integer(name, fallback)
  }

  text(name: string): string | null {
    const value = this.#values[name] ?? null
    return value === null || typeof value === 'string' ? value : this.fault(name, 'a text')
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.#values[name] ?? fallback
    return typeof value === 'boolean' ? value : this.fault(name, 'true or false')
  }

  texts(name: string): readonly string[] | null {
    const list = this.#list(name, 'a list of texts')
    return list === null || list.every((item) => typeof item === 'string') ? list : this.fault(name, 'a list of texts')
  }

  integers(name: string): readonly number[] | null {
    const wanted = 'a list of whole numbers'
    const list = this.#list(name, wanted)
    return list === null || list.every((item) => Number.isSafeInteger(item))
      ? (list as number[] | null)
      : this.fault(name, wanted)
  }

  fields(name: string): ConfigFields | null {
    const value = this.#values[name] ?? null
    if (value === null) return null
    if (typeof value !== 'object' || Array.isArray(value)) return this.fault(name, 'an object')
    return new ConfigFields(value as Record<string, unknown>, `${this.#place} ${name}:`, { notes: this.notes })
  }

  /** The objects below this one, by name. */
  entries(): [string, ConfigFields][] {
    return Object.keys(this.#values).flatMap((name) => {
      const fields = this.fields(name)
      return fields === null ? [] : [[name, fields] satisfies [string, ConfigFields]]
    })
  }

  note(sentence: string): void {
    if (!this.notes.includes(sentence)) this.notes.push(sentence)
  }

  /** Throws MODEL_CONFIG_INVALID for a field that is not what it has to be. */
  fault(name: string, wanted: string): never {
    const value = this.#values[name]
    const found = value === undefined ? 'absent' : JSON.stringify(value).slice(0, 80)
    throw new RouterError('MODEL_CONFIG_INVALID', `${this.#place} "${name}" has to be ${wanted}; it is ${found}`)
  }

  #list(name: string, wanted: string): readonly unknown[] | null {
    const value = this.#values[name] ?? null
    return value === null || Array.isArray(value) ? value : this.fault(name, wanted)
  }
}
