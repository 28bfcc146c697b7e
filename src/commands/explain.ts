import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { RouterError } from '../errors.ts'
import type { Command } from './command.ts'

const defaultAdminUrl = 'http://127.0.0.1:8081'

interface Candidate {
  readonly worker: string
  readonly matchedBlocks: Readonly<Record<string, number>>
  readonly comingBlocks?: number
  readonly exact: boolean
  readonly load: Readonly<Record<string, number>>
  readonly total: number
  readonly filteredBy?: string
}

interface Decision {
  readonly pool: string
  readonly profile: string
  readonly promptTokens: number
  readonly blocks: number
  readonly candidates: readonly Candidate[]
  readonly chosen: string
  readonly reason: string
  readonly fallback?: string
  readonly predictedCachedTokens: number
}

export const explain: Command = {
  name: 'explain',
  summary: 'show where a request would go and why, without sending it',
  usage: `warmroute explain [--url ADMIN_URL] [--admin-key KEY] [--header 'NAME: VALUE']… [--json] FILE

  FILE             an OpenAI request body (chat or completion); - reads standard input
  --url ADMIN_URL  admin port of the router (default ${defaultAdminUrl})
  --admin-key KEY  key of the admin port, where it has one (better in WARMROUTE_ADMIN_KEY, which no process list shows)
  --header H       a header of the request that policies read, as "x-session-id: a"; may be repeated
  --json           print the decision record as JSON`,
  async run(argv, io) {
    const { values, positionals } = parseArgs({
      args: [...argv],
      options: {
        url: { type: 'string', default: defaultAdminUrl },
        'admin-key': { type: 'string' },
        header: { type: 'string', multiple: true, default: [] },
        json: { type: 'boolean', default: false },
      },
      allowPositionals: true,
    })
    const [file, ...rest] = positionals
    if (file === undefined || rest.length > 0)
      throw new RouterError('CONFIG_INVALID', 'explain takes one file: warmroute explain --url ADMIN_URL FILE')
    const key = values['admin-key'] ?? io.environment['WARMROUTE_ADMIN_KEY'] ?? ''
    const headers = { ...headersOf(values.header), ...(key === '' ? {} : { authorization: `Bearer ${key}` }) }
    const decision = await ask(values.url, headers, readBody(file))
    io.out(values.json ? JSON.stringify(decision, null, 2) : table(decision))
    return 0
  },
}

function readBody(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8')
  } catch (cause) {
    throw new RouterError(
      'CONFIG_UNREADABLE',
      `Cannot read ${file}: ${cause instanceof Error ? cause.message : String(cause)}`,
    )
  }
}

/** Headers given as "name: value". */
function headersOf(given: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    given.map((text) => {
      const [, name, value] = /^([\w!#$%&'*+.^`|~-]+):\s*(.*?)\s*$/.exec(text) ?? []
      if (name === undefined || value === undefined)
        throw new RouterError('CONFIG_INVALID', `--header takes NAME: VALUE, not "${text}"`)
      return [name.toLowerCase(), value]
    }),
  )
}

async function ask(url: string, headers: Readonly<Record<string, string>>, body: string): Promise<Decision> {
  let answer: Response
  try {
    answer = await fetch(new URL('/admin/explain', url), {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json' },
      body,
    })
  } catch (cause) {
    throw new RouterError('UPSTREAM_UNREACHABLE', `No router answers at ${url}; --url takes the admin port's URL`, {
      cause,
    })
  }
  const value = (await answer.json()) as Decision & { error?: { message: string } }
  if (!answer.ok)
    throw new RouterError(
      'BODY_INVALID',
      `The router answers ${answer.status}: ${value.error?.message ?? 'no reason given'}`,
    )
  return value
}

function table(decision: Decision): string {
  const head = ['', 'worker', 'gpu', 'host', 'disk', 'shared', 'coming', 'exact', 'requests', 'prefill', 'total', '']
  const rows = decision.candidates.map((candidate) => [
    candidate.worker === decision.chosen ? '→' : '',
    candidate.worker,
    ...['gpu', 'host', 'disk', 'shared'].map((tier) => String(candidate.matchedBlocks[tier] ?? 0)),
    String(candidate.comingBlocks ?? 0),
    candidate.exact ? 'yes' : 'no',
    String(candidate.load['requests'] ?? 0),
    String(candidate.load['prefillTokens'] ?? 0),
    String(candidate.total),
    candidate.filteredBy === undefined ? '' : `filtered by ${candidate.filteredBy}`,
  ])
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => (row[column] ?? '').length)))
  const lines = [head, ...rows].map((row) =>
    row
      .map((cell, column) => (column < 2 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ')
      .trimEnd(),
  )
  const fallback = decision.fallback === undefined ? '' : ` (fallback: ${decision.fallback})`
  return [
    `pool ${decision.pool}, profile ${decision.profile}, ${decision.promptTokens} prompt tokens, ${decision.blocks} blocks`,
    ...lines,
    `chosen ${decision.chosen}: ${decision.reason}${fallback}, ${decision.predictedCachedTokens} tokens predicted to be cached`,
  ].join('\n')
}
