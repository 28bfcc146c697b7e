import { Unsupported, type Value } from './jinja-values.ts'

/** A node of the library's syntax tree. */
export interface Node {
  readonly type: string
  readonly [field: string]: unknown
}

/** One rendering: the variables by their slots, and the pieces of text that were put out so far. */
export interface Frame {
  readonly slots: Value[]
  out: string[]
}

export type Evaluate = (frame: Frame) => Value
export type Run = (frame: Frame) => void

/** Marks the slot of a name that a loop's body sets and has not set yet. */
export const unset = Symbol('unset')

export const literals = new Map<string, Value>([
  ['true', true],
  ['True', true],
  ['false', false],
  ['False', false],
  ['none', null],
  ['None', null],
])

/** Names with a meaning of their own: what is called, and `loop`. */
export const reserved = ['namespace', 'range', 'strftime_now', 'raise_exception', 'loop']

/** The names that one loop's body sets; the template's own level is the outermost. */
interface Scope {
  readonly slots: ReadonlyMap<string, number>
  readonly outer: Scope | null
}

/** The names of a template, and the slot that each has at each level where it is set. */
export class TemplateNames {
  /** Slots given away. */
  slots = 0
  /** Slots of the outermost level, which is filled from outside. */
  readonly outermost = new Map<string, number>()
  #scope: Scope | null = null

  /** Enters a loop's body, which sets these names. Returns their slots, which lie side by side in this order. */
  enter(names: readonly string[]): ReadonlyMap<string, number> {
    const slots = new Map<string, number>()
    for (const name of names) if (!slots.has(name)) slots.set(name, this.slots++)
    this.#scope = { slots, outer: this.#scope }
    return slots
  }

  leave(): void {
    this.#scope = this.#scope?.outer ?? null
  }

  /** Where a name is set at this place. */
  target(name: string): number {
    return this.#scope?.slots.get(name) ?? this.#outerSlot(name)
  }

  /** A name: of the innermost loop that has set it, else of the template's level. */
  variable(name: string): Evaluate {
    const inner: number[] = []
    for (let scope = this.#scope; scope !== null; scope = scope.outer) {
      const slot = scope.slots.get(name)
      if (slot !== undefined) inner.push(slot)
    }
    const last = this.#outerSlot(name)
    const [first] = inner
    if (first === undefined) return (frame) => frame.slots[last]
    return (frame) => {
      const value = frame.slots[first]
      if (value !== unset) return value
      for (const slot of inner) if (frame.slots[slot] !== unset) return frame.slots[slot]
      return frame.slots[last]
    }
  }

  #outerSlot(name: string): number {
    const slot = this.outermost.get(name) ?? this.slots++
    this.outermost.set(name, slot)
    return slot
  }
}

export function nameOf(node: Node): string {
  if (node.type !== 'Identifier' || typeof node['value'] !== 'string') throw new Unsupported(node.type)
  return node['value']
}

/** A name that is set, which a reserved one cannot be. */
export function targetOf(node: Node): string {
  const name = nameOf(node)
  if (reserved.includes(name) || literals.has(name)) throw new Unsupported(name)
  return name
}
