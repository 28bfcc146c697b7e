import Type from 'typebox'

/* What options are made of: a type, a description, a default, limits. */

export const object = <Properties extends Record<string, Type.TSchema>>(properties: Properties, options: object = {}) =>
  Type.Object(properties, { additionalProperties: false, ...options })

export const text = (description: string, options: object = {}) =>
  Type.String({ description, minLength: 1, ...options })
export const integer = (description: string, minimum: number, maximum: number, options: object = {}) =>
  Type.Integer({ description, minimum, maximum, ...options })
export const oneOf = <const Values extends readonly string[]>(
  values: Values,
  description: string,
  options: object = {},
) => Type.Unsafe<Values[number]>(Type.String({ enum: [...values], description, ...options }))

export const hourMs = 3_600_000
export const GiB = 1024 ** 3
