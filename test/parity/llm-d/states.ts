import { randomWords } from '../../support/random.ts'

/** What is known of one endpoint as a request comes. */
export interface EndpointState {
  readonly labels: Readonly<Record<string, string>>
  /** The engine's figures. */
  readonly waiting: number
  readonly running: number
  readonly kv: number
  /** Matched and all blocks of the prompt, and tokens in a block. */
  readonly match: number
  readonly total: number
  readonly block: number
  /** Requests in flight, their uncached prompt tokens, and those of the request itself. */
  readonly requests: number
  readonly tokens: number
  readonly uncached: number
  /** Whether it is a candidate. */
  readonly present: boolean
}

export interface RequestState {
  /** Of the prompt. */
  readonly tokens: number
  readonly headers: Readonly<Record<string, string>>
  readonly endpoints: readonly EndpointState[]
  /** The endpoint that the request is sent to after it was scored. */
  readonly pick: number
}

/** One instance of a plugin and the requests that it sees one after the other. */
export interface PluginRun {
  readonly kind: 'filter' | 'scorer'
  readonly type: string
  /** As llm-d takes them. */
  readonly parameters: Readonly<Record<string, unknown>>
  readonly steps: readonly RequestState[]
}

export interface StatesShape {
  readonly seed: number
  readonly runsOfType: number
  readonly steps: number
}

const endpointCount = 8
const rangeLabel = 'llm-d.ai/context-length-range'
const ranges = ['0-2000', '1000-1000', '500-9000', 'a-b', '3000-20', '4000-12000']
const roles = [
  'decode',
  'prefill',
  'encode',
  'both',
  'prefill-decode',
  'encode-prefill',
  'encode-prefill-decode',
  'none',
]
const zones = ['a', 'b', 'c']
const tiers = ['x', 'y', 'z']

/** Numbers below a limit, from a seed. */
type Below = (limit: number) => number

const sessionId = {
  strategy: 'session_id',
  sessionIdConfig: { sources: [{ header: 'x-chat' }, { header: 'x-session-id' }] },
}
const none = (): object => ({})

/** Every plugin that is compared, and how its parameters are drawn. */
const drawn: readonly (readonly [PluginRun['kind'], string, (below: Below) => object])[] = [
  ['scorer', 'queue-scorer', none],
  ['scorer', 'running-requests-size-scorer', none],
  ['scorer', 'kv-cache-utilization-scorer', none],
  ['scorer', 'load-aware-scorer', (below) => ({ threshold: 1 + below(40) })],
  ['scorer', 'token-load-scorer', (below) => ({ queueThresholdTokens: 1_000 + below(100_000) })],
  ['scorer', 'active-request-scorer', (below) => ({ idleThreshold: below(3), maxBusyScore: below(11) / 10 })],
  [
    'scorer',
    'prefix-cache-scorer',
    (below) => ({ matchLengthWeight: below(11) / 10, matchLengthScaleTokens: 500 + below(9_000) }),
  ],
  ['scorer', 'no-hit-lru-scorer', (below) => ({ lruSize: 3 + below(8) })],
  ['scorer', 'session-affinity-scorer', () => sessionId],
  ['filter', 'session-affinity-filter', () => sessionId],
  ['scorer', 'context-length-aware', none],
  ['filter', 'context-length-aware', () => ({ enableFiltering: true })],
  ['scorer', 'header-label-affinity-scorer', () => ({ headerName: 'X-Zone', labelKey: 'zone' })],
  ['filter', 'label-selector-filter', selector],
  [
    'filter',
    'by-label',
    (below) => ({ label: 'zone', validValues: zones.slice(below(2), 2), allowsNoLabel: below(2) === 0 }),
  ],
  ['filter', 'decode-filter', none],
  ['filter', 'prefill-filter', none],
  ['filter', 'encode-filter', none],
  ['filter', 'utilization-filter', utilization],
  [
    'filter',
    'prefix-cache-affinity-filter',
    (below) => ({
      affinityThreshold: below(11) / 10,
      maxTTFTPenaltyMs: below(3) * 1_500,
      peakPrefillThroughput: 2_000 + below(20_000),
    }),
  ],
]

/** States in which every plugin's rules come to bear, drawn from a seed. */
export function pluginRuns({ seed, runsOfType, steps }: StatesShape): PluginRun[] {
  const next = randomWords(seed)
  const below: Below = (limit) => next() % limit
  return drawn.flatMap(([kind, type, parametersOf]) =>
    Array.from({ length: runsOfType }, () => {
      const parameters = { ...parametersOf(below) }
      const labels = Array.from({ length: endpointCount }, () => labelsOf(below))
      return { kind, type, parameters, steps: Array.from({ length: steps }, () => requestState(below, labels)) }
    }),
  )
}

function requestState(below: Below, labels: readonly Readonly<Record<string, string>>[]): RequestState {
  const tokens = 1 + below(9_000)
  const isCold = below(2) === 0
  const drawnStates = labels.map((each) => endpointState(below, each, tokens, isCold))
  const first = below(endpointCount)
  const endpoints = drawnStates.map((state, index) => (index === first ? { ...state, present: true } : state))
  const present = endpoints.flatMap((state, index) => (state.present ? [index] : []))
  return { tokens, headers: headersOf(below), endpoints, pick: present[below(present.length)] ?? first }
}

function endpointState(
  below: Below,
  labels: Readonly<Record<string, string>>,
  promptTokens: number,
  isCold: boolean,
): EndpointState {
  const block = 16
  const total = Math.floor(promptTokens / block)
  const match = isCold || total === 0 || below(3) === 0 ? 0 : below(total)
  return {
    labels,
    waiting: below(3) * below(8),
    running: below(40),
    kv: below(101) / 100,
    ...{ match, total, block },
    requests: below(3) * below(12),
    tokens: below(3) * below(20_000),
    uncached: promptTokens - match * block,
    present: below(5) > 0,
  }
}

function labelsOf(below: Below): Readonly<Record<string, string>> {
  const given: readonly (readonly [string, readonly string[], number])[] = [
    ['zone', zones, 3],
    ['tier', tiers, 2],
    ['llm-d.ai/role', roles, 4],
    [rangeLabel, ranges, 4],
  ]
  return Object.fromEntries(
    given.flatMap(([name, values, oneIn]) =>
      below(oneIn) === 0 ? [] : [[name, values[below(values.length)] ?? ''] as const],
    ),
  )
}

function headersOf(below: Below): Readonly<Record<string, string>> {
  return {
    ...(below(3) === 0 ? {} : { 'x-session-id': `s${below(4)}` }),
    ...(below(5) === 0 ? { 'x-chat': `s${below(3)}` } : {}),
    ...(below(3) === 0 ? {} : { 'x-zone': zones[below(3)] ?? '' }),
  }
}

function selector(below: Below): object {
  const expressions = [
    { key: 'tier', operator: below(2) === 0 ? 'In' : 'NotIn', values: ['x', 'y'] },
    { key: 'zone', operator: below(2) === 0 ? 'Exists' : 'DoesNotExist' },
  ]
  return { matchLabels: below(2) === 0 ? {} : { zone: 'a' }, matchExpressions: expressions.slice(below(3)) }
}

function utilization(below: Below): object {
  const conditions = [
    { metric: 'active-requests', maxValue: below(20) },
    { metric: 'running-requests', maxValue: below(40) },
    { metric: 'waiting-queue', maxValue: below(14) },
    { metric: 'kv-cache-utilization', maxValue: below(11) / 10 },
  ]
  const chosen = conditions.filter(() => below(2) === 0)
  return { conditions: chosen.length === 0 ? conditions : chosen, fallbackOnEmpty: below(2) === 0 }
}
