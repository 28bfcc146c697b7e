/** One match in so many counts as a use of the run that it ends in. */
export const usesCounted = 8

/** A run of units with who was sent prompts that go through it. Two words a unit, low word first. */
interface Node {
  units: Uint32Array
  parent: Node | null
  readonly children: Map<number, Node>
  /** When each owner was last sent a prompt that ends here; 0 where prompts only went through. */
  readonly usedAt: Map<number, number>
  /** Who is answered for this run, while it is one of its owners. */
  owner: number | null
}

/**
 * sglang-router's approximate prefix tree: which worker was sent which prompt. One tree for all workers, a radix tree over
 * opaque units (there characters, here blocks), each run with the workers that were sent it. It is asked for the longest
 * match of anybody, and answers with the one that was sent the run first. Least recently used runs go when a worker has
 * more than it may have.
 *
 *     ┌ "system prompt" ─ owners 1, 2 ─┬ "question A" ─ owner 1
 *     root                             └ "question B" ─ owner 2
 */
export class PrefixTree {
  /** Units that the last `match` found. */
  matchedUnits = 0
  readonly #root: Node = nodeOf(new Uint32Array(0), null, null)
  readonly #units = new Map<number, number>()
  #step: number
  #eviction: Eviction | null = null

  /** @param firstStep where the count of matches and insertions begins, by which matches count as uses */
  constructor(firstStep = 0) {
    this.#step = firstStep
  }

  /** Owner of the run in which the longest match ends; null where nothing matches. Changes nothing but `matchedUnits`. */
  match(units: Uint32Array): number | null {
    const { node, matched } = this.#walk(units)
    this.matchedUnits = matched
    return matched === 0 ? null : ownerOf(node)
  }

  /** Counts a match that was acted upon, so that what is matched often stays. */
  use(units: Uint32Array): void {
    const step = this.#step++
    if (step % usesCounted !== 0) return
    const { node } = this.#walk(units)
    const owner = ownerOf(node)
    if (owner !== null && node.usedAt.has(owner)) node.usedAt.set(owner, step)
  }

  insert(units: Uint32Array, owner: number): void {
    let node = this.#root
    if (!this.#units.has(owner)) this.#units.set(owner, 0)
    for (let at = 0; at < units.length;) {
      const first = unitAt(units, at)
      const child = node.children.get(first)
      if (child === undefined) {
        const leaf = nodeOf(units.slice(at), node, owner)
        node.children.set(first, leaf)
        this.#join(leaf, owner, this.#step++)
        return
      }
      const shared = sharedWords(units, at, child.units)
      // Two units that only look alike under one name: the tree is left as it is.
      if (shared === 0) return
      node = shared < child.units.length ? split(child, shared) : child
      if (!node.usedAt.has(owner)) this.#join(node, owner, 0)
      at += shared
    }
    node.usedAt.set(owner, this.#step++)
  }

  unitsOf(owner: number): number {
    return this.#units.get(owner) ?? 0
  }

  owners(): IterableIterator<number> {
    return this.#units.keys()
  }

  /** Takes the least recently used runs from every owner that has more than so many units. */
  evict(mostUnits: number): void {
    this.beginEviction(mostUnits)
    this.evictSome(Infinity)
  }

  /** As `evict`, but the work is left to `evictSome`; one that is under way goes on instead. */
  beginEviction(mostUnits: number): void {
    const over = new Set([...this.#units].filter(([, units]) => units > mostUnits).map(([owner]) => owner))
    if (over.size > 0) this.#eviction ??= { over, mostUnits, unseen: [this.#root], leaves: new Leaves() }
  }

  /** Goes on with an eviction, by so many runs at most: one of a large tree would hold up everything else. */
  evictSome(mostRuns: number): void {
    const eviction = this.#eviction
    if (eviction === null) return
    const { unseen, leaves } = eviction
    let runs = 0
    for (; runs < mostRuns; runs++) {
      const node = unseen.pop()
      if (node === undefined) break
      for (const child of node.children.values()) unseen.push(child)
      if (node !== this.#root) this.#gatherLeaves(node, eviction)
    }
    for (; runs < mostRuns; runs++) {
      const leaf = leaves.pop()
      if (leaf === undefined) break
      this.#evictLeaf(leaf, eviction)
    }
    if (runs < mostRuns) this.#eviction = null
  }

  /** Forgets a worker. */
  remove(owner: number): void {
    for (const node of this.#nodes()) if (node.usedAt.has(owner)) this.#leave(node, owner)
    this.#units.delete(owner)
  }

  #walk(units: Uint32Array): { readonly node: Node; readonly matched: number } {
    let node = this.#root
    let at = 0
    while (at < units.length) {
      const child = node.children.get(unitAt(units, at))
      if (child === undefined) break
      const shared = sharedWords(units, at, child.units)
      if (shared === 0) break
      node = child
      at += shared
      if (shared < child.units.length) break
    }
    return { node, matched: at / 2 }
  }

  #join(node: Node, owner: number, usedAt: number): void {
    node.usedAt.set(owner, usedAt)
    this.#units.set(owner, this.unitsOf(owner) + node.units.length / 2)
  }

  #leave(node: Node, owner: number): void {
    node.usedAt.delete(owner)
    this.#units.set(owner, this.unitsOf(owner) - node.units.length / 2)
    const isEmpty = node.children.size === 0 && node.usedAt.size === 0
    if (isEmpty && node.parent !== null) node.parent.children.delete(unitAt(node.units, 0))
  }

  /** The run, for each owner that has too much and whose prompts end there. */
  #gatherLeaves(node: Node, { over, leaves }: Eviction): void {
    for (const [owner, usedAt] of node.usedAt)
      if (over.has(owner) && isLeafOf(node, owner)) leaves.push({ node, owner, usedAt })
  }

  #evictLeaf({ node, owner, usedAt }: Leaf, { mostUnits, leaves }: Eviction): void {
    const usedLast = node.usedAt.get(owner)
    if (usedLast === undefined || this.unitsOf(owner) <= mostUnits || !isLeafOf(node, owner)) return
    if (usedLast > usedAt) {
      // It was used since it was found.
      leaves.push({ node, owner, usedAt: usedLast })
      return
    }
    const { parent } = node
    this.#leave(node, owner)
    const parentUsedAt = parent?.usedAt.get(owner)
    if (parent !== null && parentUsedAt !== undefined && isLeafOf(parent, owner))
      leaves.push({ node: parent, owner, usedAt: parentUsedAt })
  }

  /** Every run but the root, those further down first. */
  #nodes(): Node[] {
    const found: Node[] = [this.#root]
    // The list grows as it is read.
    for (const node of found) for (const child of node.children.values()) found.push(child)
    return found.slice(1).reverse()
  }
}

/** An eviction under way: first all leaves are found, then the oldest go. */
interface Eviction {
  readonly over: ReadonlySet<number>
  readonly mostUnits: number
  readonly unseen: Node[]
  readonly leaves: Leaves
}

interface Leaf {
  readonly node: Node
  readonly owner: number
  readonly usedAt: number
}

/** Leaves by their last use: a binary heap. */
class Leaves {
  readonly #heap: Leaf[] = []

  push(leaf: Leaf): void {
    const heap = this.#heap
    let at = heap.push(leaf) - 1
    while (at > 0) {
      const above = (at - 1) >> 1
      const other = heap[above] as Leaf
      if (other.usedAt <= leaf.usedAt) break
      heap[at] = other
      at = above
    }
    heap[at] = leaf
  }

  /** The least recently used. */
  pop(): Leaf | undefined {
    const heap = this.#heap
    const first = heap[0]
    const last = heap.pop()
    if (first === undefined || last === undefined || heap.length === 0) return first
    let at = 0
    for (let below = 1; below < heap.length; below = 2 * at + 1) {
      const right = heap[below + 1]
      if (right !== undefined && right.usedAt < (heap[below] as Leaf).usedAt) below++
      const child = heap[below] as Leaf
      if (child.usedAt >= last.usedAt) break
      heap[at] = child
      at = below
    }
    heap[at] = last
    return first
  }
}

function nodeOf(units: Uint32Array, parent: Node | null, owner: number | null): Node {
  return { units, parent, children: new Map(), usedAt: new Map(), owner }
}

/** The first part of a run as a run of its own; the run itself goes on as its child. */
function split(node: Node, words: number): Node {
  const { parent, units } = node
  const upper: Node = { ...nodeOf(units.slice(0, words), parent, node.owner), usedAt: new Map(node.usedAt) }
  parent?.children.set(unitAt(units, 0), upper)
  node.units = units.slice(words)
  node.parent = upper
  upper.children.set(unitAt(node.units, 0), node)
  return upper
}

/** Who was sent the run first, or, where that one has it no more, the first that still has. */
function ownerOf(node: Node): number | null {
  if (node.owner === null || !node.usedAt.has(node.owner)) node.owner = node.usedAt.keys().next().value ?? null
  return node.owner
}

function isLeafOf(node: Node, owner: number): boolean {
  for (const child of node.children.values()) if (child.usedAt.has(owner)) return false
  return true
}

/** As many bits of a unit as a number holds: enough to find it by. */
function unitAt(units: Uint32Array, at: number): number {
  return ((units[at + 1] as number) % 0x20_0000) * 0x1_0000_0000 + (units[at] as number)
}

/** Words of whole units in which the rest of `units` and `run` begin alike. */
function sharedWords(units: Uint32Array, at: number, run: Uint32Array): number {
  const most = Math.min(units.length - at, run.length)
  let words = 0
  while (words < most && units[at + words] === run[words]) words++
  return words - (words % 2)
}
