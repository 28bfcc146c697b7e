/**
 * Whether a chat template wants a message's content as a list of parts or as text, found in its syntax tree by vLLM 0.32's
 * rule: the template loops over `message.content`, where `message` comes from a loop over `messages` (the list may go through
 * assignments, both through filters, tests and slices), or over a variable that is called `content` (macros do).
 */
export type ContentFormat = 'list' | 'text'

/** The parts of the library's syntax tree that are looked at here. */
interface Node {
  readonly type: string
  readonly [field: string]: unknown
}

export function contentFormatOf(program: object): ContentFormat {
  const nodes = [...walk(program)]
  const loops = nodes.filter((node) => node.type === 'For')
  const listNames = assignedNames(nodes, 'messages')
  const messageNames = loops
    .filter((loop) => listNames.some((name) => isAccess(iterableOf(loop), name, null)))
    .map((loop) => nameOf(loop['loopvar']))
    .filter((name) => name !== null)
  const overContent = (loop: Node): boolean => {
    const iterable = iterableOf(loop)
    return nameOf(iterable) === 'content' || messageNames.some((name) => isAccess(iterable, name, 'content'))
  }
  return loops.some(overContent) ? 'list' : 'text'
}

/** Words that look like names to the parser, but are Jinja's literals. */
const literals = new Set(['true', 'false', 'none', 'True', 'False', 'None'])

/** Every name in a syntax tree. */
export function namesIn(program: object): ReadonlySet<string> {
  const names = new Set<string>()
  for (const node of walk(program)) {
    const name = nameOf(node)
    if (name !== null && !literals.has(name)) names.add(name)
  }
  return names
}

/** The name itself and every name that it is assigned to, directly or through others. */
function assignedNames(nodes: readonly Node[], name: string): string[] {
  const found = [name]
  for (const current of found) {
    for (const node of nodes) {
      const target = node.type === 'Set' ? nameOf(node['assignee']) : null
      if (target !== null && !found.includes(target) && isAccess(asNode(node['value']), current, null))
        found.push(target)
    }
  }
  return found
}

/** Whether a node is the named variable (or, with a key, that member of it), behind any filters, tests and slices. */
function isAccess(node: Node | null, name: string, key: string | null): boolean {
  if (node === null) return false
  if (node.type === 'FilterExpression' || node.type === 'TestExpression')
    return isAccess(asNode(node['operand']), name, key)
  if (node.type === 'MemberExpression') {
    const property = asNode(node['property'])
    if (property?.type === 'SliceExpression') return isAccess(asNode(node['object']), name, key)
    return key !== null && nameOf(node['object']) === name && property !== null && String(property['value']) === key
  }
  return key === null && nameOf(node) === name
}

/** What a loop walks over; `for x in list if condition` wraps the list. */
function iterableOf(loop: Node): Node | null {
  const iterable = asNode(loop['iterable'])
  return iterable?.type === 'SelectExpression' ? asNode(iterable['lhs']) : iterable
}

function nameOf(value: unknown): string | null {
  const node = asNode(value)
  return node?.type === 'Identifier' ? String(node['value']) : null
}

function asNode(value: unknown): Node | null {
  return typeof value === 'object' && value !== null && typeof (value as Node).type === 'string'
    ? (value as Node)
    : null
}

function* walk(value: unknown): Generator<Node> {
  if (typeof value !== 'object' || value === null) return
  const node = asNode(value)
  if (node !== null) yield node
  const children: Iterable<unknown> = value instanceof Map ? [...value].flat() : Object.values(value)
  for (const child of children) yield* walk(child)
}
