import { RouterError } from '../../errors.ts'

/** One line of a trace. Every fault names the file, the line and the field. */
export class Row {
  readonly #fields: Readonly<Record<string, unknown>>
  readonly #place: string

  constructor(fields: Readonly<Record<string, unknown>>, place: string) {
    this.#fields = fields
    this.#place = place
  }

  static parse(line: string, file: string, lineNumber: number): Row {
    const place = `${file} line ${lineNumber}`
    let value: unknown
    try {
      value = JSON.parse(line)
    } catch (cause) {
      throw new RouterError('TRACE_INVALID', `${place} is not JSON: ${(cause as Error).message}`)
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new RouterError('TRACE_INVALID', `${place} is no JSON object`)
    return new Row(value as Record<string, unknown>, place)
  }

  has(field: string): boolean {
    return this.#fields[field] !== undefined && this.#fields[field] !== null
  }

  whole(field: string, least: number): number {
    const value = this.#fields[field]
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < least)
      this.fault(field, `a whole number of at least ${least}`)
    return value
  }

  /** A finite number, not below 0. */
  number(field: string): number {
    const value = this.#fields[field]
    if (typeof value !== 'number' || !Number.isFinite(value) || value < 0) this.fault(field, 'a number of at least 0')
    return value
  }

  text(field: string): string {
    const value = this.#fields[field]
    if (typeof value !== 'string') this.fault(field, 'a text')
    return value
  }

  list(field: string): readonly unknown[] {
    const value = this.#fields[field]
    if (!Array.isArray(value)) this.fault(field, 'a list')
    return value as unknown[]
  }

  /** The objects of a list; faults in them name their place in it. */
  rows(field: string): readonly Row[] {
    return this.list(field).map((value, index) => {
      const place = `${this.#place}, "${field}" ${index + 1}`
      if (typeof value !== 'object' || value === null) throw new RouterError('TRACE_INVALID', `${place} is no object`)
      return new Row(value as Record<string, unknown>, place)
    })
  }

  fault(field: string, wanted: string): never {
    const value = this.#fields[field]
    const found = value === undefined ? 'missing' : excerpt(JSON.stringify(value))
    throw new RouterError('TRACE_INVALID', `${this.#place}: "${field}" must be ${wanted}, and is ${found}`)
  }
}

function excerpt(text: string): string {
  return text.length <= 60 ? text : `${text.slice(0, 57)}…`
}
