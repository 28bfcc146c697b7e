import { filledParameters, parameterFaults } from '../parameters.ts'
import type { Dispatch, Fallback, Filter, Picker, PolicyContext, PolicyPlugin, Scorer } from '../policy.ts'
import { canary, dispatchOf, madeUp, margin, streamOf, type MadeUp } from './made-up.ts'

/** A rule that a plugin breaks. */
export interface Finding {
  readonly rule: Rule
  readonly detail: string
}

/**
 * `parameters`: they have no sound default · `throws`: a call failed · `promise`: a call is not over when it returns ·
 * `writes-inputs`: something that belongs to the router was changed · `out-of-bounds`: results were written behind the last
 * candidate · `not-a-number`: a score is NaN · `mask`: something else than 0 and 1, or a candidate taken back in ·
 * `picks-nobody`: not a kept candidate · `not-repeatable`: equal calls with equal clocks and randomness differ · `slow`.
 */
export type Rule =
  | 'parameters'
  | 'throws'
  | 'promise'
  | 'writes-inputs'
  | 'out-of-bounds'
  | 'not-a-number'
  | 'mask'
  | 'picks-nobody'
  | 'not-repeatable'
  | 'slow'

export interface ContractOptions {
  /** Those that a config would give; what is left out has its default. */
  readonly parameters?: Readonly<Record<string, unknown>>
  readonly seed?: number
  /** Decisions, among 1 to 256 workers. */
  readonly decisions?: number
  /** Mean of a call among 256 workers, in milliseconds, above which the plugin is slow. */
  readonly slowMs?: number
}

/**
 * Plays made-up decisions with a policy plugin and tells which rules it breaks; none: []. Workers come and go, figures are
 * missing, answers come late or never. The rules are those that the router relies on.
 */
export function checkPolicy(plugin: PolicyPlugin, options: ContractOptions = {}): Finding[] {
  const parameters = filledParameters(plugin, options.parameters)
  const [fault] = parameterFaults(plugin, parameters)
  if (fault !== undefined) return [{ rule: 'parameters', detail: fault }]
  const findings = new Map<Rule, Finding>()
  const find = (rule: Rule, detail: string): void => {
    if (!findings.has(rule)) findings.set(rule, { rule, detail })
  }
  const { seed = 1, decisions = 400 } = options
  const first = new Run(plugin, parameters, seed, find).play(decisions)
  const again = new Run(plugin, parameters, seed, () => undefined).play(decisions)
  if (first !== null && again !== null) {
    const differs = first.findIndex((result, index) => result !== again[index])
    if (differs >= 0)
      find('not-repeatable', `decision ${differs + 1}: ${first[differs] ?? ''} and ${again[differs] ?? ''}`)
  }
  if (findings.size === 0) {
    const tookMs = new Run(plugin, parameters, seed, () => undefined).time()
    const { slowMs = 1 } = options
    if (tookMs > slowMs) find('slow', `${tookMs.toFixed(2)} ms a call among ${mostWorkers} workers`)
  }
  return [...findings.values()]
}

const mostWorkers = 256
const sizes = [1, 2, 3, 8, 40, mostWorkers]

type Made = Filter | Fallback | Scorer | Picker

class Run {
  readonly #plugin: PolicyPlugin
  readonly #find: (rule: Rule, detail: string) => void
  readonly #random: () => number
  readonly #made: Made | null
  #nowMs = 1000
  #serials: number[] = []
  #nextSerial = 0

  constructor(plugin: PolicyPlugin, parameters: unknown, seed: number, find: (rule: Rule, detail: string) => void) {
    this.#plugin = plugin
    this.#find = find
    this.#random = streamOf(seed)
    const own = streamOf(seed + 1)
    const context: PolicyContext = { clock: () => this.#nowMs, wallClock: () => 1.8e12 + this.#nowMs, random: own }
    // The parameters have been checked against the plugin's own schema.
    this.#made = this.#guarded('create', () => plugin.create(parameters as never, context))
  }

  /** What came of each decision, as text; null where the plugin cannot be made. */
  play(decisions: number): string[] | null {
    const made = this.#made
    if (made === null) return null
    const results: string[] = []
    const live: Dispatch[] = []
    for (let decision = 0; decision < decisions; decision++) {
      this.#nowMs += this.#random() * 200
      this.#change(sizes[decision % sizes.length] as number)
      const scene = madeUp(this.#serials, this.#random)
      const [result, chosen] = this.#decide(made, scene)
      results.push(result)
      const dispatch = dispatchOf(scene, chosen, this.#nowMs)
      live.push(dispatch)
      this.#guarded('onDispatched', () => made.onDispatched?.(dispatch))
      while (live.length > 0 && this.#random() < 0.5) this.#end(made, live)
    }
    while (live.length > 0) this.#end(made, live)
    return results
  }

  /** Mean milliseconds of a call among the most workers. */
  time(): number {
    const made = this.#made
    if (made === null) return 0
    this.#change(mostWorkers)
    const scene = madeUp(this.#serials, this.#random)
    for (let call = 0; call < 100; call++) this.#call(made, scene)
    const startMs = performance.now()
    for (let call = 0; call < 100; call++) this.#call(made, scene)
    return (performance.now() - startMs) / 100
  }

  /** Workers join, and some leave, whose serials never come again. */
  #change(count: number): void {
    this.#serials = this.#serials.filter(() => this.#random() < 0.95).slice(0, count)
    while (this.#serials.length < count) this.#serials.push(this.#nextSerial++)
  }

  #decide(made: Made, scene: MadeUp): readonly [result: string, chosen: number] {
    const before = Object.values(scene.arrays).map((array) => array.slice())
    const [result, chosen] = this.#call(made, scene)
    for (const [index, [name, array]] of Object.entries(scene.arrays).entries())
      if (!sameItems(array, before[index])) this.#find('writes-inputs', `"${name}" was changed`)
    return [result, chosen]
  }

  #call(made: Made, { request, fleet, match }: MadeUp): readonly [result: string, chosen: number] {
    const { count } = fleet
    const keep = new Uint8Array(count + margin).fill(1, 0, count)
    if (this.#plugin.kind !== 'filter') for (let i = 1; i < count; i++) if (this.#random() < 0.3) keep[i] = 0
    const anyone = Math.floor(this.#random() * count)
    if ('filter' in made) {
      this.#guarded('filter', () => made.filter(request, fleet, match, keep))
      this.#checkMask(keep, count)
      return [keep.join(''), anyone]
    }
    const kept = keep.slice()
    const result = this.#result(made, { request, fleet, match }, keep, anyone)
    if (!sameItems(keep, kept)) this.#find('writes-inputs', '"keep" was changed')
    return result
  }

  #result(
    made: Exclude<Made, Filter>,
    { request, fleet, match }: Pick<MadeUp, 'request' | 'fleet' | 'match'>,
    keep: Uint8Array,
    anyone: number,
  ): readonly [result: string, chosen: number] {
    const { count } = fleet
    if ('applies' in made) {
      const applies = this.#guarded('applies', () => made.applies(request, fleet, match, keep))
      return [String(applies), anyone]
    }
    const numbers = new Float64Array(count + margin).fill(0, 0, count).fill(canary, count)
    if ('score' in made) {
      this.#guarded('score', () => made.score(request, fleet, match, numbers, keep))
      for (let i = 0; i < count; i++)
        if (Number.isNaN(numbers[i])) this.#find('not-a-number', `candidate ${i} of ${count}`)
      for (let i = count; i < count + margin; i++)
        if (numbers[i] !== canary) this.#find('out-of-bounds', `place ${i} of ${count}`)
      return [numbers.join(' '), anyone]
    }
    for (let i = 0; i < count; i++) numbers[i] = Math.floor(this.#random() * 5) - 2
    const totals = numbers.slice()
    const picked = this.#guarded('pick', () => made.pick(request, fleet, match, numbers, keep)) ?? -1
    if (!sameItems(numbers, totals)) this.#find('writes-inputs', '"totals" was changed')
    if (keep[picked] === 1 && picked < count) return [String(picked), picked]
    this.#find('picks-nobody', `${picked} of ${count}`)
    return [String(picked), anyone]
  }

  #checkMask(keep: Uint8Array, count: number): void {
    for (let i = 0; i < count; i++)
      if ((keep[i] as number) > 1) this.#find('mask', `${keep[i] ?? ''} at candidate ${i}`)
    for (let i = count; i < keep.length; i++) if (keep[i] !== 0) this.#find('out-of-bounds', `place ${i} of ${count}`)
  }

  #end(made: Made, live: Dispatch[]): void {
    const [dispatch] = live.splice(Math.floor(this.#random() * live.length), 1)
    if (dispatch === undefined) return
    const ttftMs = this.#random() * 1000
    if (dispatch.stream && this.#random() < 0.9)
      this.#guarded('onFirstByte', () => made.onFirstByte?.(dispatch, ttftMs))
    this.#guarded('onFinished', () => made.onFinished?.(dispatch))
  }

  #guarded<Result>(name: string, call: () => Result): Result | null {
    try {
      const result = call()
      if (result instanceof Promise) {
        result.catch(() => undefined)
        this.#find('promise', `${name} answers a promise`)
      }
      return result
    } catch (error) {
      this.#find('throws', `${name}: ${error instanceof Error ? error.message : String(error)}`)
      return null
    }
  }
}

type Items = Int32Array | Float64Array | Uint32Array | Uint8Array

function sameItems(items: Items, others: Items | undefined): boolean {
  if (others?.length !== items.length) return false
  for (let i = 0; i < items.length; i++) if (!Object.is(items[i], others[i])) return false
  return true
}
