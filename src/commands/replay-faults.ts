import { RouterError } from '../errors.ts'
import type { ReplayFault } from '../replay/faults.ts'

interface FaultKind {
  readonly fields: readonly string[]
  /** Fields that may be left out. */
  readonly more?: readonly string[]
  readonly make: (of: (field: string) => number, has: (field: string) => boolean) => ReplayFault
}

/** A fault on the command line: its kind, then what it asks for, times in seconds: `restart:worker=1,at=300,down=30`. */
const kinds: Readonly<Record<string, FaultKind>> = {
  restart: {
    fields: ['worker', 'at', 'down'],
    make: (of) => ({ kind: 'restart', worker: of('worker'), atMs: 1000 * of('at'), downMs: 1000 * of('down') }),
  },
  slow: {
    fields: ['worker', 'at', 'factor'],
    make: (of) => ({ kind: 'slow', worker: of('worker'), atMs: 1000 * of('at'), factor: of('factor') }),
  },
  'scale-out': {
    fields: ['workers', 'at'],
    make: (of) => ({ kind: 'scale-out', workers: of('workers'), atMs: 1000 * of('at') }),
  },
  'router-restart': {
    fields: ['at', 'kept'],
    make: (of) => ({ kind: 'router-restart', atMs: 1000 * of('at'), keptBatches: of('kept') }),
  },
  'lost-events': {
    fields: ['share'],
    make: (of) => ({ kind: 'lost-events', share: of('share'), repair: 'replay' }),
  },
  'lost-events-for-good': {
    fields: ['share'],
    make: (of) => ({ kind: 'lost-events', share: of('share'), repair: 'forget' }),
  },
  foreign: {
    fields: ['rate', 'prompt', 'output', 'from', 'until'],
    more: ['worker'],
    make: (of, has) => ({
      ...(has('worker') ? { worker: of('worker') } : {}),
      ...{ kind: 'foreign', requestsPerSecond: of('rate'), promptTokens: of('prompt'), outputTokens: of('output') },
      ...{ fromMs: 1000 * of('from'), untilMs: 1000 * of('until') },
    }),
  },
}

/** Throws RouterError CONFIG_INVALID, which names what is missing or unknown. */
export function faultOf(text: string, workers: number): ReplayFault {
  const [kind = '', rest = ''] = text.split(/:(.*)/s)
  const known = kinds[kind]
  if (known === undefined)
    throw new RouterError('CONFIG_INVALID', `--fault: unknown kind "${kind}". Known: ${faultForms().join('; ')}`)
  const given = new Map(rest.split(',').map((pair) => pair.split('=') as [string, string | undefined]))
  for (const field of given.keys())
    if (![...known.fields, ...(known.more ?? [])].includes(field))
      throw new RouterError('CONFIG_INVALID', `--fault ${kind}: unknown field "${field}". Its form: ${formOf(kind)}`)
  const of = (field: string): number => {
    const value = Number(given.get(field) ?? NaN)
    if (!Number.isFinite(value) || value < 0)
      throw new RouterError('CONFIG_INVALID', `--fault ${kind}: "${field}" must be a number. Its form: ${formOf(kind)}`)
    return value
  }
  const fault = known.make(of, (field) => given.has(field))
  if ('worker' in fault && fault.worker >= workers)
    throw new RouterError(
      'CONFIG_INVALID',
      `--fault ${kind}: there is no worker ${fault.worker}; they are 0 to ${workers - 1}`,
    )
  return fault
}

/** Each with its fields, for the help. */
export function faultForms(): string[] {
  return Object.keys(kinds).map(formOf)
}

function formOf(kind: string): string {
  const { fields = [], more = [] } = kinds[kind] ?? {}
  return `${kind}:${fields.map((field) => `${field}=…`).join(',')}${more.map((field) => `[,${field}=…]`).join('')}`
}
