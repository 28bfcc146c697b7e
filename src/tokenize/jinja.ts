import * as library from '@huggingface/jinja'

// The package's declarations import each other without file extensions, which Node's resolution refuses, so that its types
// come out empty. These are the ones in use here (version 0.5).

/** A value inside a rendering. */
export interface RuntimeValue {
  readonly value: unknown
}

export type RuntimeClass = new (value: unknown) => RuntimeValue

/** The variables of one scope; names that it lacks are looked up in its parent. */
export interface Environment {
  /** Wraps a plain value and declares it; a name can be declared once. */
  set(name: string, value: unknown): RuntimeValue
  setVariable(name: string, value: RuntimeValue): RuntimeValue
}

/** A template's syntax tree. */
export interface Program {
  readonly type: string
}

interface Library {
  readonly Environment: new (parent?: Environment) => Environment
  readonly Interpreter: new (environment: Environment) => { run(program: Program): RuntimeValue }
  readonly parse: (tokens: unknown) => Program
  readonly tokenize: (source: string, options: { lstrip_blocks: boolean; trim_blocks: boolean }) => unknown
}

const typed = library as unknown as Library

export const JinjaEnvironment = typed.Environment
export const JinjaInterpreter = typed.Interpreter

/** Parses a template as transformers does: whitespace around blocks trimmed. */
export function parseTemplate(source: string): Program {
  return typed.parse(typed.tokenize(source, { lstrip_blocks: true, trim_blocks: true }))
}
