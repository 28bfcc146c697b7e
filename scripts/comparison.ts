import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { BenchResult } from '../bench/result.ts'
import { figure } from './benchmarks-page.ts'

const begin = '<!-- From bench/results/agentic.json by `npm run docs`. Do not edit. -->'
const end = '<!-- End of what is generated. -->'

/** Sees what no router can, so that its figures are no contender's. */
const oracle = 'oracle (greedy)'

interface Column {
  readonly title: string
  /** By policy. */
  readonly values: ReadonlyMap<string, number>
  readonly best: (values: readonly number[]) => number
}

/** docs/routing.md with its table of policies as `npm run bench agentic` last measured them. */
export function routingPage(): string {
  const file = (path: string): string => readFileSync(fileURLToPath(new URL(`../${path}`, import.meta.url)), 'utf8')
  const page = file('docs/routing.md')
  const { results } = JSON.parse(file('bench/results/agentic.json')) as { results: readonly BenchResult[] }
  const from = page.indexOf(begin)
  const to = page.indexOf(end)
  if (from === -1 || to < from) throw new Error('docs/routing.md has no place for the comparison of policies')
  return [page.slice(0, from) + begin, '', ...comparison(results), '', page.slice(to)].join('\n')
}

function comparison(results: readonly BenchResult[]): string[] {
  const columns = [8, 16].map((workers) => highestLoad(results, workers)).concat(timesToFirstToken(results))
  const policies = [...(columns[0]?.values.keys() ?? [])]
  return [
    `| policy | ${columns.map(({ title }) => title).join(' | ')} |`,
    `|${'---|'.repeat(columns.length + 1)}`,
    ...policies.map((policy) => `| ${policy} | ${columns.map((column) => cell(column, policy)).join(' | ')} |`),
  ]
}

function highestLoad(results: readonly BenchResult[], workers: number): Column {
  const name = new RegExp(`^agentic, ${workers} workers, caches of 25 %: (.*), highest load with 95 % in SLO$`)
  return {
    title: `users with 95 % in SLO: ${workers} workers`,
    values: valuesOf(results, name, ({ value }) => value),
    best: (values) => Math.max(...values),
  }
}

function timesToFirstToken(results: readonly BenchResult[]): Column[] {
  return [70, 90].flatMap((load) => {
    const place = `agentic, 8 workers, caches of 25 %, ${load} % load`
    const users = results.find(({ name }) => name.startsWith(place))?.name.match(/\((\d+) users\)/)?.[1] ?? '?'
    const name = new RegExp(`^${place} \\(\\d+ users\\): (.*), mean TTFT over seeds$`)
    const best = (values: readonly number[]): number => Math.min(...values)
    return [
      { title: `${users} users: mean`, values: valuesOf(results, name, ({ value }) => value), best },
      ...['p50', 'p90'].map((part) => ({
        title: part,
        values: valuesOf(results, name, ({ notes }) => Number(notes?.[part] ?? NaN)),
        best,
      })),
    ]
  })
}

function valuesOf(
  results: readonly BenchResult[],
  name: RegExp,
  value: (result: BenchResult) => number,
): Map<string, number> {
  return new Map(
    results.flatMap((result) => {
      const policy = name.exec(result.name)?.[1]
      return policy === undefined ? [] : [[policy, value(result)] as const]
    }),
  )
}

function cell({ values, best }: Column, policy: string): string {
  const value = values.get(policy)
  if (value === undefined) return ''
  const contenders = [...values].filter(([name]) => name !== oracle).map(([, each]) => each)
  const text = figure(value)
  return policy !== oracle && text === figure(best(contenders)) ? `**${text}**` : text
}
