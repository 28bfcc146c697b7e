import {
  add,
  arithmetic,
  attribute,
  contains,
  element,
  equal,
  filter,
  json,
  method,
  Namespace,
  printed,
  slice,
  test,
  truth,
  Unsupported,
  type Value,
} from './jinja-values.ts'
import { nameOf, reserved, type Evaluate, type Node, type Run, type TemplateNames } from './template-names.ts'

/** The functions that a template may call, besides `namespace` and `raise_exception`. */
export interface TemplateFunctions {
  readonly range: (first: number, second?: number, third?: number) => number[]
  readonly strftime: (format: string) => string
}

/** Turns a template's expressions into closures. */
export class ExpressionCompiler {
  readonly #names: TemplateNames
  readonly #functions: TemplateFunctions

  constructor(names: TemplateNames, functions: TemplateFunctions) {
    this.#names = names
    this.#functions = functions
  }

  compile(node: Node): Evaluate {
    switch (node.type) {
      case 'StringLiteral':
      case 'IntegerLiteral': {
        const value = node['value']
        return () => value
      }
      case 'ArrayLiteral': {
        const items = (node['value'] as Node[]).map((item) => this.compile(item))
        return (frame) =>
          items.map((item) => {
            const value = item(frame)
            if (value === undefined) throw new Unsupported('undefined')
            return value
          })
      }
      case 'Identifier':
        return reserved.includes(nameOf(node)) ? never(nameOf(node)) : this.#names.variable(nameOf(node))
      case 'MemberExpression':
        return this.#member(node)
      case 'BinaryExpression':
        return this.#binary(node)
      case 'UnaryExpression':
        return this.#unary(node)
      case 'TestExpression':
        return this.#test(node)
      case 'FilterExpression':
        return this.#filter(node)
      case 'CallExpression':
        return this.#call(node)
      case 'Ternary':
        return this.#choice(node['condition'], node['trueExpr'], node['falseExpr'])
      case 'SelectExpression':
        return this.#choice(node['test'], node['lhs'], null)
      default:
        return never(node.type)
    }
  }

  #choice(condition: unknown, chosen: unknown, otherwise: unknown): Evaluate {
    const decide = this.compile(condition as Node)
    const yes = this.compile(chosen as Node)
    const no: Evaluate = otherwise === null ? () => undefined : this.compile(otherwise as Node)
    return (frame) => (truth(decide(frame)) ? yes(frame) : no(frame))
  }

  #member(node: Node): Evaluate {
    const owner = node['object'] as Node
    const property = node['property'] as Node
    const object =
      owner.type === 'Identifier' && owner['value'] === 'loop' ? this.#names.variable('loop') : this.compile(owner)
    if (node['computed'] !== true && property.type === 'Identifier') {
      const name = nameOf(property)
      return (frame) => attribute(object(frame), name)
    }
    if (property.type === 'SliceExpression') {
      const [start, stop, step] = ['start', 'stop', 'step'].map((part): Evaluate => {
        const given = property[part] as Node | undefined
        return given === undefined ? () => undefined : this.compile(given)
      }) as [Evaluate, Evaluate, Evaluate]
      return (frame) => slice(object(frame), start(frame), stop(frame), step(frame))
    }
    const key = this.compile(property)
    return (frame) => element(object(frame), key(frame))
  }

  #binary(node: Node): Evaluate {
    const operator = operatorOf(node)
    const left = this.compile(node['left'] as Node)
    const right = this.compile(node['right'] as Node)
    switch (operator) {
      case 'and':
        return (frame) => {
          const value = left(frame)
          return truth(value) ? right(frame) : value
        }
      case 'or':
        return (frame) => {
          const value = left(frame)
          return truth(value) ? value : right(frame)
        }
      case '==':
        return (frame) => equal(left(frame), right(frame))
      case '!=':
        return (frame) => !equal(left(frame), right(frame))
      case 'in':
        return (frame) => contains(left(frame), right(frame))
      case 'not in':
        return (frame) => !contains(left(frame), right(frame))
      case '+':
        return (frame) => add(left(frame), right(frame))
      case '~':
        return (frame) => printed(left(frame)) + printed(right(frame))
      default:
        return (frame) => arithmetic(operator, left(frame), right(frame))
    }
  }

  #unary(node: Node): Evaluate {
    const argument = this.compile(node['argument'] as Node)
    switch (operatorOf(node)) {
      case 'not':
        return (frame) => !truth(argument(frame))
      case '-':
        return (frame) => arithmetic('-', 0, argument(frame))
      default:
        return never('unary')
    }
  }

  #test(node: Node): Evaluate {
    const operand = this.compile(node['operand'] as Node)
    const name = nameOf(node['test'] as Node)
    const negated = node['negate'] === true
    return (frame) => test(name, operand(frame)) !== negated
  }

  #filter(node: Node): Evaluate {
    const operand = this.compile(node['operand'] as Node)
    const applied = node['filter'] as Node
    if (applied.type === 'Identifier') {
      const name = nameOf(applied)
      return (frame) => filter(name, operand(frame))
    }
    const [argument, ...more] = applied['args'] as Node[]
    const name = nameOf(applied['callee'] as Node)
    if (name !== 'tojson' || more.length > 0 || argument?.type !== 'KeywordArgumentExpression') return never(name)
    const indent = argument['value'] as Node
    if (nameOf(argument['key'] as Node) !== 'indent' || indent.type !== 'IntegerLiteral') return never(name)
    return (frame) => json(operand(frame), indent['value'] as number, 0)
  }

  #call(node: Node): Evaluate {
    const callee = node['callee'] as Node
    const given = node['args'] as Node[]
    if (callee.type === 'Identifier' && nameOf(callee) === 'namespace') return this.#namespace(given)
    if (given.some(({ type }) => type.includes('Keyword') || type === 'SpreadExpression')) return never('arguments')
    const values = given.map((argument) => this.compile(argument))
    if (callee.type === 'MemberExpression' && callee['computed'] !== true) {
      const object = this.compile(callee['object'] as Node)
      const name = nameOf(callee['property'] as Node)
      return (frame) =>
        method(
          object(frame),
          name,
          values.map((value) => value(frame)),
        )
    }
    const { range, strftime } = this.#functions
    switch (callee.type === 'Identifier' ? nameOf(callee) : '') {
      case 'range':
        return (frame) => range(...(values.map((value) => integerOf(value(frame))) as [number]))
      case 'strftime_now':
        return (frame) => strftime(printed(values[0]?.(frame)))
      default:
        // `raise_exception` and functions that a macro would make.
        return never('call')
    }
  }

  #namespace(given: readonly Node[]): Evaluate {
    if (given.some(({ type }) => type !== 'KeywordArgumentExpression')) return never('namespace')
    const entries = given.map((argument): [string, Evaluate] => [
      nameOf(argument['key'] as Node),
      this.compile(argument['value'] as Node),
    ])
    if (new Set(entries.map(([name]) => name)).size < entries.length) return never('namespace')
    return (frame) => new Namespace(new Map(entries.map(([name, value]) => [name, value(frame)])))
  }
}

/** What is left to the interpreter when it is reached. */
export function never(what: string): Evaluate & Run {
  return () => {
    throw new Unsupported(what)
  }
}

export function operatorOf(node: Node): string {
  return (node['operator'] as { readonly value: string }).value
}

function integerOf(value: Value): number {
  if (typeof value !== 'number' || !Number.isInteger(value)) throw new Unsupported('range')
  return value
}
