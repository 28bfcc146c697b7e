import type { Chosen } from './warmroute.ts'

/** Blocks of a prompt as rows of consecutive numbers; equal numbers are equal blocks after equal prompts. */
export type NamedBlocks = readonly (readonly [first: number, count: number])[]

/** One case of a run as a fixture keeps it: what happened in its order, and what the service chose. */
export interface KeptCase {
  readonly name: string
  readonly parameters: Readonly<Record<string, number | boolean>>
  readonly workers: number
  readonly blockSize: number
  readonly steps: readonly KeptStep[]
}

export type KeptStep =
  | readonly ['first byte' | 'finished', id: string]
  | readonly [
      'ask',
      id: string,
      promptTokens: number,
      blocks: NamedBlocks,
      held: readonly (readonly [worker: number, gpu: number, host: number, disk: number])[],
      chosen: number,
      cost: number,
    ]

/** One decision of both routers. */
export interface Decided {
  readonly id: string
  readonly promptTokens: number
  readonly ours: Chosen
  /** The worker that the service chose. */
  readonly theirs: number
}

/** Writes down a run, with blocks under numbers of its own. */
export class DynamoLog {
  readonly #numbers = new Map<bigint, number>()
  readonly steps: KeptStep[] = []

  happened(kind: 'first byte' | 'finished', id: string): void {
    this.steps.push([kind, id])
  }

  asked({ id, promptTokens, ours, theirs }: Decided): void {
    const held = ours.held.flatMap(({ gpu, host, disk }, worker) =>
      gpu + host + disk === 0 ? [] : [[worker, gpu, host, disk] as const],
    )
    this.steps.push(['ask', id, promptTokens, this.#named(ours.keys), held, theirs, ours.costs[theirs] as number])
  }

  #named(keys: Uint32Array): NamedBlocks {
    const rows: [first: number, count: number][] = []
    const wide = new BigUint64Array(keys.buffer, keys.byteOffset, keys.length >>> 1)
    for (const key of wide) {
      let number = this.#numbers.get(key)
      if (number === undefined) this.#numbers.set(key, (number = this.#numbers.size))
      const last = rows.at(-1)
      if (last !== undefined && last[0] + last[1] === number) last[1]++
      else rows.push([number, 1])
    }
    return rows
  }
}

/** Keys for blocks under such numbers. */
export function keysOf(blocks: NamedBlocks): Uint32Array {
  return Uint32Array.from(
    blocks.flatMap(([first, count]) =>
      Array.from({ length: 2 * count }, (_, i) => (i % 2 === 0 ? first + i / 2 + 1 : 7)),
    ),
  )
}
