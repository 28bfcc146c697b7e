/** What a Heap holds remembers its own place in it; −1 while it is in none. */
export interface Heaped {
  heapPlace: number
}

/** A binary heap from whose middle an item can be taken, and in which it can move, in O(log n). */
export class Heap<Item extends Heaped> {
  readonly #items: Item[] = []
  readonly #before: (a: Item, b: Item) => boolean

  constructor(before: (a: Item, b: Item) => boolean) {
    this.#before = before
  }

  get size(): number {
    return this.#items.length
  }

  /** The item that stands before all others. */
  get first(): Item | undefined {
    return this.#items[0]
  }

  /** All items, in no useful order. */
  get items(): readonly Item[] {
    return this.#items
  }

  add(item: Item): void {
    item.heapPlace = this.#items.length
    this.#items.push(item)
    this.#rise(item)
  }

  remove(item: Item): void {
    const { heapPlace } = item
    if (heapPlace === -1) return
    item.heapPlace = -1
    const last = this.#items.pop()
    if (last === undefined || last === item) return
    this.#put(last, heapPlace)
    this.moved(last)
  }

  /** To be called once what an item is ordered by has changed. */
  moved(item: Item): void {
    this.#rise(item)
    this.#sink(item)
  }

  #rise(item: Item): void {
    while (item.heapPlace > 0) {
      const above = (item.heapPlace - 1) >> 1
      const parent = this.#items[above] as Item
      if (!this.#before(item, parent)) return
      this.#put(parent, item.heapPlace)
      this.#put(item, above)
    }
  }

  #sink(item: Item): void {
    for (;;) {
      const below = 2 * item.heapPlace + 1
      const left = this.#items[below]
      if (left === undefined) return
      const right = this.#items[below + 1]
      const child = right !== undefined && this.#before(right, left) ? right : left
      if (!this.#before(child, item)) return
      const place = child.heapPlace
      this.#put(child, item.heapPlace)
      this.#put(item, place)
    }
  }

  #put(item: Item, place: number): void {
    this.#items[place] = item
    item.heapPlace = place
  }
}
