import type { ConfigFields } from './config-fields.ts'

/** The type of a model's activations, and of its keys and values unless the engine is told otherwise. */
export interface ElementType {
  readonly name: string
  readonly bytes: number
}

const elementTypes: ReadonlyMap<string, number> = new Map([
  ['bfloat16', 2],
  ['float16', 2],
  ['float32', 4],
])

/** Bytes of an element of the type that a field names; null where it is absent. */
export function elementBytes(fields: ConfigFields, field: string): number | null {
  const name = fields.text(field)
  if (name === null) return null
  return elementTypes.get(name) ?? fields.fault(field, `one of ${[...elementTypes.keys()].join(', ')}`)
}

export function readElementType(fields: ConfigFields): ElementType {
  const field = fields.has('dtype') ? 'dtype' : 'torch_dtype'
  const [name, bytes] = [fields.text(field), elementBytes(fields, field)]
  if (name === null || bytes === null) {
    fields.note('neither dtype nor torch_dtype is given: bfloat16 is assumed')
    return { name: 'bfloat16', bytes: 2 }
  }
  if (bytes <= 2) return { name, bytes }
  fields.note(`weights are stored as ${name}; engines load them in 16 bits unless told otherwise, which is assumed`)
  return { name: 'float16', bytes: 2 }
}
