import { ApiError, invalid } from './api-error.ts'

/** A request body, parsed. */
export type Body = Readonly<Record<string, unknown>>

export function bodyOf(value: unknown): Body {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Body
  const message = 'Input should be a valid dictionary or object to extract fields from'
  throw invalid({ field: '', kind: 'model_attributes_type', message, value })
}

export function textOf(body: Body, field: string): string | null {
  const value = body[field]
  if (value === undefined || value === null) return null
  if (typeof value !== 'string') {
    throw invalid({ field, kind: 'string_type', message: 'Input should be a valid string', value })
  }
  return value
}

/** Pydantic takes more than JSON's own `true` and `false`, so `"stream": "yes"` streams. */
export function flagOf(body: Body, field: string): boolean {
  const value = body[field]
  if (value === undefined || value === null) return false
  if (typeof value === 'boolean') return value
  const word = typeof value === 'string' || typeof value === 'number' ? String(value).toLowerCase() : ''
  if (['true', 'yes', 'on', '1', 't', 'y'].includes(word)) return true
  if (['false', 'no', 'off', '0', 'f', 'n'].includes(word)) return false
  const message = 'Input should be a valid boolean, unable to interpret input'
  throw invalid({ field, kind: 'bool_parsing', message, value })
}

export function wholeOf(body: Body, field: string, least: number): number | null {
  const value = body[field]
  if (value === undefined || value === null) return null
  const number = typeof value === 'string' && /^[+-]?\d+$/.test(value) ? Number(value) : value
  if (typeof number !== 'number' || !Number.isInteger(number)) {
    throw invalid({ field, kind: 'int_type', message: 'Input should be a valid integer', value })
  }
  if (number < least) throw new ApiError(400, `${field} must be at least ${least}, got ${number}.`, field)
  return number
}

export function recordOf(body: Body, field: string): Body | null {
  const value = body[field]
  if (value === undefined || value === null) return null
  if (typeof value !== 'object' || Array.isArray(value)) {
    throw invalid({ field, kind: 'dict_type', message: 'Input should be a valid dictionary', value })
  }
  return value as Body
}

/** Checks a list of token ids against the vocabulary. */
export function tokenIds(value: unknown, vocabularySize: number, field: string): Uint32Array {
  if (!Array.isArray(value)) {
    throw invalid({ field, kind: 'list_type', message: 'Input should be a valid list', value })
  }
  return Uint32Array.from(value, (id: unknown, at) => {
    if (typeof id !== 'number' || !Number.isInteger(id)) {
      throw invalid({
        field: `${field}.${at}`,
        kind: 'int_type',
        message: 'Input should be a valid integer',
        value: id,
      })
    }
    if (id < 0 || id >= vocabularySize) throw new ApiError(400, `Token id ${id} is out of vocabulary`, field)
    return id
  })
}

export function nonEmpty(tokens: Uint32Array, param: string): Uint32Array {
  if (tokens.length === 0) throw new ApiError(400, 'The decoder prompt cannot be empty', param)
  return tokens
}
