import type { ChatPrompt } from './chat.ts'

/** A body of another API whose chat cannot be told exactly: it is routed by load, and the engine says whether it is wrong. */
export class Unconvertible extends Error {}

/** The chat, or null where the making of it meets something that it cannot convert. */
export function chatOrNull(make: () => ChatPrompt): ChatPrompt | null {
  try {
    return make()
  } catch (error) {
    if (error instanceof Unconvertible) return null
    throw error
  }
}

export type Fields = Readonly<Record<string, unknown>>

export function fieldsOf(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Unconvertible(what)
  return value as Fields
}

export function listOf(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw new Unconvertible(what)
  return value
}

export function textOf(value: unknown, what: string): string {
  if (typeof value !== 'string') throw new Unconvertible(what)
  return value
}

/** Null for what is absent. */
export function textOrNull(value: unknown, what: string): string | null {
  return value === undefined || value === null ? null : textOf(value, what)
}

export function flagOrNull(value: unknown, what: string): boolean | null {
  if (value === undefined || value === null) return null
  if (typeof value !== 'boolean') throw new Unconvertible(what)
  return value
}

/** A JSON object whose keys keep their order: a Map where one of them looks like an index (see exact-json). */
export function objectOrNull(value: unknown, what: string): object | null {
  return value === undefined || value === null ? null : fieldsOf(value, what)
}

/** One of some words; null for what is absent. */
export function wordOrNull<Word extends string>(value: unknown, words: readonly Word[], what: string): Word | null {
  if (value === undefined || value === null) return null
  const word = words.find((candidate) => candidate === value)
  if (word === undefined) throw new Unconvertible(what)
  return word
}
