import type { TemplateFunctions } from './expression-compiler.ts'
import { Unsupported, type Value } from './jinja-values.ts'
import { StatementCompiler } from './statement-compiler.ts'
import { literals, reserved, TemplateNames, unset, type Frame, type Node, type Run } from './template-names.ts'

/**
 * A template turned into closures: ten times faster than interpreting its tree, and the text comes in pieces that are the very
 * strings of the messages, so that an equal beginning of two conversations is seen without reading their text.
 *
 * It renders what the interpreter renders, or nothing: whatever is not known to be the same throws, at the first mistake of a
 * template too, and the caller has the interpreter render the whole.
 */
export class CompiledTemplate {
  readonly #run: Run
  readonly #slots: number
  /** Slots of the names that a template reads from outside. */
  readonly #names: ReadonlyMap<string, number>
  readonly #constants: Readonly<Record<string, unknown>>

  /** Null for a template with macros, breaks or other constructs that are left to the interpreter. */
  static from(
    program: object,
    constants: Readonly<Record<string, unknown>>,
    functions: TemplateFunctions,
  ): CompiledTemplate | null {
    try {
      const names = new TemplateNames()
      const run = new StatementCompiler(names, functions).block((program as Node)['body'] as Node[])
      return new CompiledTemplate(run, names, constants)
    } catch (error) {
      if (error instanceof Unsupported) return null
      throw error
    }
  }

  private constructor(run: Run, names: TemplateNames, constants: Readonly<Record<string, unknown>>) {
    this.#run = run
    this.#slots = names.slots
    this.#names = names.outermost
    this.#constants = constants
  }

  /** The text in pieces. @throws anything at all where the interpreter has to decide */
  render(variables: Readonly<Record<string, unknown>>): string[] {
    for (const name of reserved) if (Object.hasOwn(variables, name)) throw new Unsupported(name)
    const frame: Frame = { slots: new Array<Value>(this.#slots).fill(unset), out: [] }
    for (const [name, slot] of this.#names) frame.slots[slot] = this.#outer(name, variables)
    this.#run(frame)
    return frame.out
  }

  #outer(name: string, variables: Readonly<Record<string, unknown>>): Value {
    if (Object.hasOwn(variables, name)) return variables[name] ?? null
    if (Object.hasOwn(this.#constants, name)) return this.#constants[name] ?? null
    return literals.get(name)
  }
}
