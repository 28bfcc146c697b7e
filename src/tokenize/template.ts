import { RouterError } from '../errors.ts'
import { CompiledTemplate } from './compiled-template.ts'
import { contentFormatOf, namesIn, type ContentFormat } from './content-format.ts'
import { PythonNumber } from './exact-json.ts'
import {
  JinjaEnvironment,
  JinjaInterpreter,
  parseTemplate,
  type Environment,
  type Program,
  type RuntimeClass,
  type RuntimeValue,
} from './jinja.ts'
import { stripAsPython } from './python-strip.ts'
import { strftime } from './strftime.ts'

/**
 * A model's chat template, compiled once. Rendered as Hugging Face transformers renders it: blocks trimmed, loop controls,
 * `raise_exception` and `strftime_now` at hand.
 */
export class ChatTemplate {
  /** Whether the template walks over a message's content parts, or prints the content as text. */
  readonly contentFormat: ContentFormat
  /** Whether the template knows the role `developer`; if not, such messages become system messages. */
  readonly knowsDeveloper: boolean
  /** Every name that the template reads: the keyword arguments that may reach it. */
  readonly names: ReadonlySet<string>
  readonly source: string
  readonly #program: Program
  readonly #globals: Environment
  #compiled: CompiledTemplate | null
  /** Renderings that the compiled form has left to the interpreter, less those that it has made. */
  #left = 0

  /**
   * @param source the Jinja text
   * @param constants special tokens by their variable: bos_token, eos_token, …
   * @param now clock for templates that print the date
   */
  constructor(source: string, constants: Readonly<Record<string, unknown>>, now: () => Date) {
    this.source = source
    try {
      this.#program = parseTemplate(source)
    } catch (error) {
      throw new RouterError('TOKENIZER_UNREADABLE', `The chat template cannot be parsed: ${messageOf(error)}`, {
        cause: error,
      })
    }
    this.contentFormat = contentFormatOf(this.#program)
    this.knowsDeveloper = source.includes("'developer'") || source.includes('"developer"')
    this.names = namesIn(this.#program)
    this.#globals = globals(constants, now)
    const functions = { range, strftime: (format: string): string => strftime(now(), format) }
    this.#compiled = CompiledTemplate.from(this.#program, constants, functions)
  }

  /** Whether the template is rendered by its compiled form. */
  get compiled(): boolean {
    return this.#compiled !== null
  }

  /**
   * The text in pieces, to be joined.
   *
   * @throws RouterError TEMPLATE_REFUSED with the template's reason, BODY_TOO_DEEP
   */
  render(variables: Readonly<Record<string, unknown>>): readonly string[] {
    if (this.#compiled === null) return [this.interpret(variables)]
    try {
      const pieces = this.#compiled.render(variables)
      this.#left = Math.max(0, this.#left - 1)
      return pieces
    } catch {
      // Also where the template refuses: the interpreter knows the reason and the words for it.
      const text = this.interpret(variables)
      this.#left += 1
      if (this.#left > mostLeft) this.#compiled = null
      return [text]
    }
  }

  /**
   * What vLLM finds in its own trial, which lends the template no functions and no special tokens, so that one that needs them
   * for a chat with a later system message counts as refusing it.
   */
  inlineSystem(): InlineSystem {
    // The engine's trial knows no such block, the library does.
    if (/\{%[-+]?\s*generation\b/.test(this.source)) return 'merged'
    const environment = new JinjaEnvironment(literalsOnly())
    environment.set('range', range)
    const messages = ['system', 'user', 'system', 'user'].map((role) => ({ role, content: 't' }))
    environment.setVariable('messages', toRuntime(messages))
    environment.setVariable('add_generation_prompt', toRuntime(false))
    try {
      new JinjaInterpreter(environment).run(this.#program)
      return 'kept'
    } catch (error) {
      return refusedByBoth.test(messageOf(error)) ? 'merged' : 'unknown'
    }
  }

  /** The text as the library's interpreter makes it. @throws as `render` does */
  interpret(variables: Readonly<Record<string, unknown>>): string {
    const environment = new JinjaEnvironment(this.#globals)
    try {
      for (const [name, value] of Object.entries(variables)) environment.setVariable(name, toRuntime(value))
      return String(new JinjaInterpreter(environment).run(this.#program).value)
    } catch (error) {
      if (error instanceof Refusal) throw new RouterError('TEMPLATE_REFUSED', error.message)
      if (error instanceof RangeError) {
        throw new RouterError('BODY_TOO_DEEP', 'A value nests too deep for the chat template.', { cause: error })
      }
      throw new RouterError('TEMPLATE_REFUSED', `The chat template cannot render these messages: ${messageOf(error)}`, {
        cause: error,
      })
    }
  }
}

/**
 * Whether a template takes a system message after the first message; if not, the engine merges them all at the front. Unknown
 * where the trial fails here and might succeed there: Jinja lets a template do more with names that are not set.
 */
export type InlineSystem = 'kept' | 'merged' | 'unknown'

/** The library's words for mistakes that Jinja does not forgive, either: calling what is not set, and adding to it. */
const refusedByBoth = /^Cannot call something|^Cannot perform operation \+ on undefined/

/** A template that goes on being left to the interpreter is not tried any more. Refusals do not count. */
const mostLeft = 64

/** What a template says with `raise_exception`. */
class Refusal extends Error {}

/** The library does not export its value classes; a scratch environment that wraps one value of each kind has them. */
const classes = ((): Record<
  'integer' | 'float' | 'string' | 'boolean' | 'nothing' | 'list' | 'object' | 'function',
  RuntimeClass
> => {
  const scratch = new JinjaEnvironment()
  const classOf = (name: string, value: unknown): RuntimeClass => scratch.set(name, value).constructor as RuntimeClass
  return {
    integer: classOf('integer', 1),
    float: classOf('float', 1.5),
    string: classOf('string', ''),
    boolean: classOf('boolean', true),
    nothing: classOf('nothing', null),
    list: classOf('list', []),
    object: classOf('object', {}),
    function: classOf('function', () => null),
  }
})()
stripAsPython(classes.string, classes.function)

/** The library's own conversion loses PythonNumber and the order of Map keys, so values are wrapped here. */
function toRuntime(value: unknown): RuntimeValue {
  switch (typeof value) {
    case 'string':
      return new classes.string(value)
    case 'number':
      return Number.isInteger(value) ? new classes.integer(value) : new classes.float(value)
    case 'boolean':
      return new classes.boolean(value)
    case 'object': {
      if (value === null) return new classes.nothing(null)
      if (Array.isArray(value)) return new classes.list(value.map(toRuntime))
      if (value instanceof PythonNumber) {
        return Number.isInteger(Number(value)) && !/[.e]/.test(value.text)
          ? new classes.integer(value)
          : new classes.float(value)
      }
      const entries = new Map<string, RuntimeValue>()
      if (value instanceof Map) {
        for (const [key, item] of value as Map<string, unknown>) entries.set(key, toRuntime(item))
      } else {
        for (const key of Object.keys(value)) entries.set(key, toRuntime((value as Record<string, unknown>)[key]))
      }
      return new classes.object(entries)
    }
    default:
      return new classes.nothing(null)
  }
}

function globals(constants: Readonly<Record<string, unknown>>, now: () => Date): Environment {
  const environment = literalsOnly()
  environment.set('raise_exception', (reason: unknown) => {
    throw new Refusal(String(reason))
  })
  environment.set('range', range)
  environment.set('strftime_now', (format: unknown) => strftime(now(), String(format)))
  for (const [name, value] of Object.entries(constants)) environment.setVariable(name, toRuntime(value))
  return environment
}

function literalsOnly(): Environment {
  const environment = new JinjaEnvironment()
  for (const [name, value] of Object.entries({
    true: true,
    false: false,
    none: null,
    True: true,
    False: false,
    None: null,
  })) {
    environment.set(name, value)
  }
  return environment
}

/** Longest list that a template's `range` may make. */
const maxRange = 1_000_000

function range(first: number, second?: number, third?: number): number[] {
  const start = second === undefined ? 0 : first
  const stop = second ?? first
  const step = third ?? 1
  if (step === 0) throw new Error('range() arg 3 must not be zero')
  const length = Math.max(0, Math.ceil((stop - start) / step))
  if (length > maxRange) throw new Error(`range() may not be longer than ${maxRange}`)
  return Array.from({ length }, (_, index) => start + index * step)
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
