import { Heap, type Heaped } from './heap.ts'

/** What decides when an entry's turn comes. */
export interface Turn {
  readonly keyId: string
  /** Share of the service among the keys of one class. */
  readonly weight: number
  /** A lower number always goes first. */
  readonly priority: number
  /** What serving it costs, in prompt tokens. */
  readonly costTokens: number
  readonly deadlineMs: number
}

/** One thing that waits. Its neighbours are those of the same key, in the order in which they came. */
export interface Entry<Value> extends Heaped {
  readonly value: Value
  readonly deadlineMs: number
  readonly costTokens: number
  /** Counts all entries, so that equals go in the order in which they came. */
  readonly number: number
  readonly flow: Flow<Value>
  previous: Entry<Value> | null
  next: Entry<Value> | null
}

/** The entries of one key in one class. */
interface Flow<Value> extends Heaped {
  readonly keyId: string
  readonly group: Class<Value>
  weight: number
  /** Virtual time at which the service of its first entry starts. */
  startTag: number
  head: Entry<Value> | null
  tail: Entry<Value> | null
  length: number
}

interface Class<Value> {
  readonly priority: number
  /** Start tag of what was served last. */
  virtualTime: number
  length: number
  readonly flows: Map<string, Flow<Value>>
}

/**
 * A queue with strict priority classes; inside a class the keys share the service in proportion to their weights, by
 * start-time fair queueing (Goyal, Vin and Cheng, 1996); inside a key first come is first served.
 *
 *     class 0 ─┬─ key a: ▢▢▢▢▢     Each key's first entry has a start tag; the least tag is served next and becomes the
 *              └─ key b: ▢         class's virtual time. The key's tag then goes up by cost ÷ weight: one that was just
 *     class 5 ─── key a: ▢▢        served much stands behind, one that comes anew starts at the virtual time.
 *
 * Over any time in which two keys both wait, what each got, divided by its weight, differs by at most one entry of each.
 * Pushing, taking and removing are O(log n). A key that has nothing waiting is remembered only until its tag is reached.
 */
export class FairQueue<Value> {
  readonly #classes = new Map<number, Class<Value>>()
  /** Keys by the turn of their first entry; those without entries too, until their tag is reached. */
  readonly #flows = new Heap<Flow<Value>>(goesBefore)
  readonly #deadlines = new Heap<Entry<Value>>((a, b) => a.deadlineMs < b.deadlineMs)
  #pushed = 0

  get length(): number {
    return this.#deadlines.size
  }

  /** Keys that the queue remembers, in all classes. */
  get rememberedKeys(): number {
    return this.#flows.size
  }

  /** Earliest deadline; Infinity where nothing waits. */
  get nextDeadlineMs(): number {
    return this.#deadlines.first?.deadlineMs ?? Infinity
  }

  push(turn: Turn, value: Value): Entry<Value> {
    const flow = this.#flow(turn)
    const entry: Entry<Value> = {
      value,
      deadlineMs: turn.deadlineMs,
      costTokens: turn.costTokens,
      number: this.#pushed++,
      flow,
      previous: flow.tail,
      next: null,
      heapPlace: -1,
    }
    if (flow.tail === null) flow.head = entry
    else flow.tail.next = entry
    flow.tail = entry
    flow.length++
    flow.group.length++
    this.#deadlines.add(entry)
    this.#flows.moved(flow)
    return entry
  }

  /** Takes out the entry whose turn it is. */
  shift(): Entry<Value> | undefined {
    const flow = this.#nextFlow()
    const entry = flow?.head
    if (flow === undefined || entry === undefined || entry === null) return undefined
    flow.group.virtualTime = flow.startTag
    flow.startTag += Math.max(1, entry.costTokens) / flow.weight
    this.#takeOut(entry)
    return entry
  }

  /** Takes out an entry whose deadline is over, the earliest first. */
  shiftExpired(nowMs: number): Entry<Value> | undefined {
    const entry = this.#deadlines.first
    if (entry === undefined || entry.deadlineMs > nowMs) return undefined
    this.#takeOut(entry)
    return entry
  }

  /** Takes out an entry whoever's turn it is; false where it was out already. It costs its key nothing. */
  remove(entry: Entry<Value>): boolean {
    if (entry.heapPlace === -1) return false
    this.#takeOut(entry)
    return true
  }

  /**
   * The entry that should give way to a newcomer where there is no place left: the newest one of the key with the most
   * entries for its weight in the last class, so that no key can fill the queue against the others. Null where that is the
   * newcomer itself. Walks over all keys.
   */
  leastDeserving(newcomer: Turn): Entry<Value> | null {
    const own = this.#classes.get(newcomer.priority)?.flows.get(newcomer.keyId)
    let worst: Flow<Value> | null = null
    let { priority } = newcomer
    let share = ((own?.length ?? 0) + 1) / newcomer.weight
    for (const flow of this.#flows.items) {
      const flowShare = flow.length / flow.weight
      const isWorse = flow.group.priority > priority || (flow.group.priority === priority && flowShare > share)
      if (flow.length === 0 || !isWorse) continue
      worst = flow
      priority = flow.group.priority
      share = flowShare
    }
    return worst?.tail ?? null
  }

  /** Waiting entries by key. */
  lengthByKey(): Map<string, number> {
    const lengths = new Map<string, number>()
    for (const { keyId, length } of this.#flows.items)
      if (length > 0) lengths.set(keyId, (lengths.get(keyId) ?? 0) + length)
    return lengths
  }

  #flow(turn: Turn): Flow<Value> {
    const group = this.#class(turn.priority)
    let flow = group.flows.get(turn.keyId)
    if (flow === undefined) {
      flow = {
        keyId: turn.keyId,
        group,
        weight: turn.weight,
        startTag: group.virtualTime,
        head: null,
        tail: null,
        length: 0,
        heapPlace: -1,
      }
      group.flows.set(turn.keyId, flow)
      this.#flows.add(flow)
    }
    flow.weight = turn.weight
    return flow
  }

  #class(priority: number): Class<Value> {
    let group = this.#classes.get(priority)
    if (group === undefined) {
      group = { priority, virtualTime: 0, length: 0, flows: new Map() }
      this.#classes.set(priority, group)
    }
    return group
  }

  /**
   * The key whose turn it is. Keys without entries before it are forgotten: what is served now sets the virtual time to
   * their tag or beyond, which is where they would start anew.
   */
  #nextFlow(): Flow<Value> | undefined {
    for (;;) {
      const flow = this.#flows.first
      if (flow === undefined || flow.length > 0) return flow
      this.#forget(flow)
    }
  }

  #takeOut(entry: Entry<Value>): void {
    const { flow, previous, next } = entry
    if (previous === null) flow.head = next
    else previous.next = next
    if (next === null) flow.tail = previous
    else next.previous = previous
    entry.previous = null
    entry.next = null
    this.#deadlines.remove(entry)
    flow.length--
    flow.group.length--
    this.#flows.moved(flow)
    if (flow.group.length > 0) return
    // Nobody in the class waits any more, so that nobody has an advantage to make up for.
    for (const idle of flow.group.flows.values()) this.#flows.remove(idle)
    this.#classes.delete(flow.group.priority)
  }

  #forget(flow: Flow<Value>): void {
    this.#flows.remove(flow)
    flow.group.flows.delete(flow.keyId)
  }
}

function goesBefore<Value>(a: Flow<Value>, b: Flow<Value>): boolean {
  if (a.group.priority !== b.group.priority) return a.group.priority < b.group.priority
  if (a.startTag !== b.startTag) return a.startTag < b.startTag
  return (a.head?.number ?? -1) < (b.head?.number ?? -1)
}
