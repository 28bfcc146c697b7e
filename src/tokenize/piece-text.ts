/**
 * A text in pieces. A long conversation's pieces are the very strings of last time, so that comparing the beginnings of two
 * texts costs by the piece, and a text is joined only from where they part.
 */
export class PieceText {
  readonly pieces: readonly string[]
  /** In UTF-16 units, as all offsets here. */
  readonly length: number
  /** Where each piece ends. */
  readonly #ends: Uint32Array

  constructor(pieces: readonly string[]) {
    this.pieces = pieces
    this.#ends = new Uint32Array(pieces.length)
    let length = 0
    for (let index = 0; index < pieces.length; index += 1) {
      length += (pieces[index] as string).length
      this.#ends[index] = length
    }
    this.length = length
  }

  /** Where a number of leading pieces ends. */
  endOf(pieces: number): number {
    return pieces === 0 ? 0 : (this.#ends[pieces - 1] as number)
  }

  /** Leading pieces that are equal in both texts. */
  sharedPieces(other: PieceText): number {
    const most = Math.min(this.pieces.length, other.pieces.length)
    let shared = 0
    while (shared < most && this.pieces[shared] === other.pieces[shared]) shared += 1
    return shared
  }

  /** The text from an offset on. */
  from(offset: number): string {
    if (offset === 0) return this.pieces.join('')
    const index = this.#pieceAt(offset)
    const piece = this.pieces[index]
    if (piece === undefined) return ''
    return piece.slice(offset - this.endOf(index)) + this.pieces.slice(index + 1).join('')
  }

  charCodeAt(offset: number): number {
    const index = this.#pieceAt(offset)
    return (this.pieces[index] ?? '').charCodeAt(offset - this.endOf(index))
  }

  equals(other: PieceText): boolean {
    if (this.length !== other.length) return false
    const shared = this.sharedPieces(other)
    return shared === this.pieces.length || this.from(this.endOf(shared)) === other.from(other.endOf(shared))
  }

  /** The piece that holds the character at an offset. */
  #pieceAt(offset: number): number {
    let low = 0
    let high = this.#ends.length
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#ends[middle] as number) <= offset) low = middle + 1
      else high = middle
    }
    return low
  }
}
