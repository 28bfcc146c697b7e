import { describeLayers } from '../../sizing/layer.ts'
import type { Sizing } from '../../sizing/sizing.ts'
import type { SizingRequest } from '../../sizing/sizing-request.ts'
import { activeParameterCount, parameterCount } from '../../sizing/weights.ts'
import { bytesText, countText, rateText, shareText } from './amount.ts'

/** The figures as people read them; `~` marks what is an estimate. */
export function sizingTable(request: SizingRequest, sizing: Sizing): string {
  return [
    ...pairs(modelRows(request)),
    '',
    ...pairs(capacityRows(request, sizing)),
    '',
    ...contextLines(request, sizing),
    ...tierLines(request, sizing),
    ...breakEvenLines(sizing),
    ...remarks('Estimates (~):', sizing.estimates),
    ...remarks('Notes:', sizing.notes),
  ]
    .join('\n')
    .trimEnd()
}

type Row = readonly [name: string, value: string, more?: string]

function modelRows({ model, parallelism, workers }: SizingRequest): Row[] {
  const { decodeContext, pipeline, tensor } = parallelism
  const { weightFormat, weights } = model
  const parameters =
    weights === null
      ? 'not told by the config'
      : `${parametersText(parameterCount(weights, model.hiddenSize))}, of which a prompt token uses ${parametersText(activeParameterCount(weights))}`
  const dcp = decodeContext === 1 ? '' : `, DCP ${decodeContext}`
  return [
    ['model', model.modelType, describeLayers(model.layers).join('; ')],
    ['parameters', parameters, weightFormat === null ? '' : weightFormat.name],
    [
      'worker',
      `${tensor * pipeline} GPU${tensor * pipeline === 1 ? '' : 's'} (TP ${tensor}, PP ${pipeline}${dcp})`,
      `${workers} in the fleet`,
    ],
  ]
}

function capacityRows(request: SizingRequest, sizing: Sizing): Row[] {
  const { capacity, distantTokenBytesPerRank, kvBytesPerGpu, layout, memory, tokenBytesOfModel, tokenBytesPerRank } =
    sizing
  const isExact = memory === null
  const about = isExact ? '' : '~'
  const [group] = layout.groups
  const groups = layout.groups.length === 1 ? '' : `, ${layout.groups.length} groups of layers`
  const distant =
    distantTokenBytesPerRank === tokenBytesPerRank ? '' : ` (${countText(distantTokenBytesPerRank)} beyond the windows)`
  const room: Row[] = isExact
    ? []
    : [
        [
          'KV memory a GPU',
          `~${bytesText(kvBytesPerGpu)}`,
          `${bytesText(memory.gpuBytes)} × ${memory.utilization} − ${bytesText(memory.weightBytes)} weights − ${bytesText(memory.otherBytes)} other`,
        ],
      ]
  const name = request.gpu?.title ?? (request.gpu?.memoryBytes === undefined ? 'given room' : 'GPU of given size')
  return [
    ['GPU', name, request.gpu?.source ?? ''],
    [
      'KV bytes a token',
      countText(tokenBytesPerRank),
      `on each rank (${request.dtype})${distant}; ${countText(tokenBytesOfModel)} in one copy of all layers`,
    ],
    [
      'a chunk of 256',
      bytesText(tokenBytesPerRank * 256),
      `on each rank; ${bytesText(tokenBytesOfModel * 256)} in one copy`,
    ],
    ...room,
    [
      'KV blocks',
      `${about}${countText(capacity.blocks)}`,
      `of ${group?.blockTokens ?? 0} tokens, one of them unusable${groups}`,
    ],
    ['tokens a worker', `${about}${countText(capacity.tokens)}`, `fleet ${about}${countText(sizing.fleetTokens)}`],
    ['vLLM would log', `${about}${sizing.logLine}`],
    ...(sizing.fullCacheStepMs === null
      ? []
      : ([
          ['decode step, full', `~${sizing.fullCacheStepMs.toFixed(1)} ms`, 'at least, each token of a full worker'],
        ] as const)),
  ]
}

function contextLines({ workers }: SizingRequest, { contexts, memory }: Sizing): string[] {
  const about = memory === null ? '' : '~'
  return [
    'Requests at which the GPUs are full, where they share nothing:',
    ...grid(
      ['tokens a request', 'blocks', 'a worker', ...(workers > 1 ? ['fleet'] : [])],
      contexts.map(({ blocks, fleetRequests, tokens, workerRequests }) => [
        ...[countText(tokens), countText(blocks), `${about}${countText(workerRequests)}`],
        ...(workers > 1 ? [`${about}${countText(fleetRequests)}`] : []),
      ]),
    ),
    '',
  ]
}

function tierLines({ workload, workers }: SizingRequest, { tierReach, tierSizes }: Sizing): string[] {
  if (workload === undefined) return []
  const { blockTokens, curve, name } = workload
  const ideal = curve.idealHitRatio
  const none = 'not reached'
  return [
    `Workload ${name}: ${countText(curve.requests)} requests, ${countText(curve.blocks)} blocks of ${blockTokens} tokens, ${countText(curve.distinctBlocks)} distinct; at most ${shareText(ideal)} are found`,
    ...grid(
      ['hit ratio', 'of possible', 'KV tokens', 'in all', 'host, a worker', 'disk, a worker', 'or a shared store'],
      tierSizes.map(({ bytes, diskBytesPerWorker, hostBytesPerWorker, sharedBytes, tokens, wantedHitRatio }) => [
        shareText(wantedHitRatio),
        ideal === 0 ? '' : shareText(wantedHitRatio / ideal),
        tokens === null ? none : countText(tokens),
        ...[bytes, hostBytesPerWorker, diskBytesPerWorker, sharedBytes].map((size) =>
          size === null ? '' : size === 0 ? 'none' : `~${bytesText(size)}`,
        ),
      ]),
    ),
    '',
    `Hit ratio with the tiers given (${workers} worker${workers === 1 ? '' : 's'}):`,
    ...grid(
      ['up to tier', 'KV tokens', 'hit ratio'],
      tierReach.map(({ hitRatio, tier, tokens }) => [tier, `~${countText(tokens)}`, `~${shareText(hitRatio)}`]),
    ),
    '',
  ]
}

function breakEvenLines({ breakEven, prefillTokensPerSecond }: Sizing): string[] {
  if (prefillTokensPerSecond === null) return []
  return [
    `Load or compute again, at ~${countText(prefillTokensPerSecond)} prompt tokens/s a worker:`,
    ...grid(
      ['from', 'at', 'bytes a token', 'tokens/s', 'time saved', 'pays from'],
      breakEven.map(({ bytesPerSecond, breakEvenBytesPerSecond, loadTokensPerSecond, tier, tokenBytes, worth }) => [
        tier,
        rateText(bytesPerSecond),
        countText(tokenBytes),
        `~${countText(loadTokensPerSecond)}`,
        worth === 0 ? 'none' : `~${(worth * 100).toFixed(0)} %`,
        `~${rateText(breakEvenBytesPerSecond)}`,
      ]),
    ),
    '',
  ]
}

function remarks(title: string, sentences: readonly string[]): string[] {
  return sentences.length === 0 ? [] : [title, ...sentences.map((sentence) => `  - ${sentence}`)]
}

function parametersText(count: number): string {
  const [unit, name] = count >= 1e9 ? [1e9, 'billion'] : [1e6, 'million']
  return `${(count / unit).toLocaleString('en-US', { maximumSignificantDigits: 4 })} ${name}`
}

function pairs(rows: readonly Row[]): string[] {
  const nameWidth = Math.max(...rows.map(([name]) => name.length))
  const valueWidth = Math.max(...rows.filter(([, , more]) => more !== undefined).map(([, value]) => value.length))
  return rows.map(([name, value, more]) =>
    `${name.padEnd(nameWidth)}  ${more === undefined ? value : value.padEnd(valueWidth)}  ${more ?? ''}`.trimEnd(),
  )
}

function grid(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const all = [head, ...rows]
  const widths = head.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)))
  return all.map((row) =>
    `  ${row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join('   ')}`.trimEnd(),
  )
}
