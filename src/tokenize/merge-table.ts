/**
 * BPE's merges by the pair of ids that they join: open addressing over one Int32Array, four numbers a slot (left, right, rank,
 * result). A lookup costs one or two cache lines, where a Map of numbers this large allocates its keys.
 */
export class MergeTable {
  readonly #slots: Int32Array
  readonly #mask: number

  /** Null if a merge names a token that the vocabulary lacks. */
  static from(
    merges: readonly (string | readonly string[])[],
    vocabulary: ReadonlyMap<string, number>,
  ): MergeTable | null {
    const table = new MergeTable(merges.length)
    for (let rank = 0; rank < merges.length; rank += 1) {
      const merge = merges[rank] as string | readonly string[]
      const [left = '', right = ''] = typeof merge === 'string' ? merge.split(' ') : merge
      const leftId = vocabulary.get(left)
      const rightId = vocabulary.get(right)
      const id = vocabulary.get(left + right)
      if (leftId === undefined || rightId === undefined || id === undefined) return null
      table.#set(leftId, rightId, rank, id)
    }
    return table
  }

  private constructor(merges: number) {
    const capacity = 2 ** Math.ceil(Math.log2(merges * 1.7 + 16))
    this.#slots = new Int32Array(capacity * 4).fill(-1)
    this.#mask = capacity - 1
  }

  /** Where the merge of this pair is, for `rank` and `result`; -1 if the pair does not merge. */
  find(left: number, right: number): number {
    const slots = this.#slots
    for (let slot = spread(left, right) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const at = slot * 4
      if (slots[at] === left && slots[at + 1] === right) return at
      if (slots[at] === -1) return -1
    }
  }

  /** Lower ranks merge first. */
  rank(found: number): number {
    return this.#slots[found + 2] as number
  }

  result(found: number): number {
    return this.#slots[found + 3] as number
  }

  #set(left: number, right: number, rank: number, id: number): void {
    const slots = this.#slots
    let slot = spread(left, right) & this.#mask
    while (slots[slot * 4] !== -1 && !(slots[slot * 4] === left && slots[slot * 4 + 1] === right))
      slot = (slot + 1) & this.#mask
    slots.set([left, right, rank, id], slot * 4)
  }
}

function spread(left: number, right: number): number {
  const mixed = Math.imul(left, 0x9e3779b1) ^ Math.imul(right + 0x7f4a7c15, 0x85ebca6b)
  return mixed ^ (mixed >>> 15)
}
