import {
  add,
  entriesOf,
  isDictionary,
  json,
  Loop,
  Namespace,
  printed,
  truth,
  Unsupported,
  type Value,
} from './jinja-values.ts'
import { ExpressionCompiler, never, operatorOf, type TemplateFunctions } from './expression-compiler.ts'
import { nameOf, targetOf, unset, type Evaluate, type Node, type Run, type TemplateNames } from './template-names.ts'

/** Turns a template's statements into closures. @throws Unsupported for what only the interpreter can do */
export class StatementCompiler {
  readonly #names: TemplateNames
  readonly #expressions: ExpressionCompiler

  constructor(names: TemplateNames, functions: TemplateFunctions) {
    this.#names = names
    this.#expressions = new ExpressionCompiler(names, functions)
  }

  block(nodes: readonly Node[]): Run {
    const runs = nodes.filter(({ type }) => type !== 'Comment').map((node) => this.#statement(node))
    const [only] = runs
    if (runs.length === 1 && only !== undefined) return only
    return (frame) => {
      for (const run of runs) run(frame)
    }
  }

  #statement(node: Node): Run {
    switch (node.type) {
      case 'If':
        return this.#if(node)
      case 'For':
        return this.#for(node)
      case 'Set':
        return this.#set(node)
      case 'Macro':
      case 'CallStatement':
      case 'FilterStatement':
      case 'Break':
      case 'Continue':
        throw new Unsupported(node.type)
      default:
        return this.#output(node)
    }
  }

  #if(node: Node): Run {
    const condition = this.#expressions.compile(node['test'] as Node)
    const body = this.block(node['body'] as Node[])
    const alternate = this.block(node['alternate'] as Node[])
    return (frame) => {
      if (truth(condition(frame))) body(frame)
      else alternate(frame)
    }
  }

  #for(node: Node): Run {
    const { type } = node['iterable'] as Node
    if (type === 'SelectExpression') return never('for … if')
    const iterable = this.#expressions.compile(node['iterable'] as Node)
    const variable = node['loopvar'] as Node
    const targets =
      variable.type === 'TupleLiteral' ? (variable['value'] as Node[]).map(targetOf) : [targetOf(variable)]
    const own = this.#names.enter(['loop', ...targets, ...assigned(node['body'] as Node[])])
    const body = this.block(node['body'] as Node[])
    const otherwise = this.block(node['defaultBlock'] as Node[])
    this.#names.leave()
    const first = own.get('loop') as number
    const { size } = own
    const targetSlots = targets.map((name) => own.get(name) as number)
    const unpacks = variable.type === 'TupleLiteral'
    return (frame) => {
      const value = iterable(frame)
      const items = isDictionary(value) ? entriesOf(value).map(([key]) => key) : value
      if (!Array.isArray(items)) throw new Unsupported('for')
      const loop = new Loop(items)
      const { slots } = frame
      slots.fill(unset, first, first + size)
      if (items.length === 0) {
        otherwise(frame)
        return
      }
      slots[first] = loop
      for (let index = 0; index < items.length; index += 1) {
        loop.index0 = index
        if (unpacks) unpack(items[index] as Value, targetSlots, slots)
        else slots[first + 1] = items[index]
        body(frame)
      }
    }
  }

  #set(node: Node): Run {
    const target = node['assignee'] as Node
    const value =
      node['value'] === null ? this.#captured(node['body'] as Node[]) : this.#expressions.compile(node['value'] as Node)
    if (target.type === 'MemberExpression') {
      const object = this.#expressions.compile(target['object'] as Node)
      const name = nameOf(target['property'] as Node)
      return (frame) => {
        const result = value(frame)
        const namespace = object(frame)
        if (!(namespace instanceof Namespace)) throw new Unsupported('set')
        namespace.values.set(name, result)
      }
    }
    const name = targetOf(target)
    const slot = this.#names.target(name)
    return (frame) => {
      frame.slots[slot] = value(frame)
    }
  }

  /** The text of a block as a value. */
  #captured(nodes: readonly Node[]): Evaluate {
    const body = this.block(nodes)
    return (frame) => {
      const { out } = frame
      frame.out = []
      body(frame)
      const text = frame.out.join('')
      frame.out = out
      return text
    }
  }

  /** Puts text out; the parts of a sum one by one, so that they stay the strings that they are. */
  #output(node: Node): Run {
    if (node.type === 'StringLiteral') {
      const text = node['value'] as string
      return (frame) => {
        frame.out.push(text)
      }
    }
    const [head, ...rest] = summands(node).map((summand) => this.#expressions.compile(summand))
    if (head === undefined) throw new Unsupported('output')
    return (frame) => {
      let first = head(frame)
      let index = 0
      while (typeof first !== 'string' && index < rest.length) first = add(first, (rest[index++] as Evaluate)(frame))
      if (first === undefined || first === null) return
      if (typeof first === 'string' || typeof first !== 'object') frame.out.push(printed(first))
      else if (Array.isArray(first) || isDictionary(first)) frame.out.push(json(first, 0, 0))
      else throw new Unsupported('output')
      for (; index < rest.length; index += 1) frame.out.push(printed((rest[index] as Evaluate)(frame)))
    }
  }
}

/** The names that statements set, inner loops' bodies left out: those set their own. */
function assigned(nodes: readonly Node[]): string[] {
  return nodes.flatMap((node) => {
    if (node.type === 'If') return assigned([...(node['body'] as Node[]), ...(node['alternate'] as Node[])])
    if (node.type !== 'Set') return []
    const target = node['assignee'] as Node
    const inner = assigned(node['body'] as Node[])
    if (target.type !== 'Identifier') return inner
    return [targetOf(target), ...inner]
  })
}

/** a + b + c as its parts, from left to right. */
function summands(node: Node): Node[] {
  if (node.type !== 'BinaryExpression' || operatorOf(node) !== '+') return [node]
  return [...summands(node['left'] as Node), node['right'] as Node]
}

function unpack(item: Value, targets: readonly number[], slots: Value[]): void {
  if (!Array.isArray(item) || item.length !== targets.length) throw new Unsupported('unpack')
  for (const [index, slot] of targets.entries()) slots[slot] = item[index] as Value
}
