/** Keys in their order and the kinds of values; lists by their first item. */
export function shape(value: unknown): unknown {
  if (Array.isArray(value)) return value.slice(0, 1).map(shape)
  if (typeof value !== 'object' || value === null) return value === null ? null : typeof value
  return Object.entries(value).map(([key, field]) => [key, shape(field)])
}
