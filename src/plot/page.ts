import { chartSvg, type ChartOptions } from './chart.ts'
import { element, escapeXml } from './xml.ts'

export interface Table {
  readonly caption?: string
  readonly columns: readonly string[]
  /** A number is set to the right, as is every cell of a column whose first cell is a number. */
  readonly rows: readonly (readonly (string | number)[])[]
}

/** A part of a page: paragraphs of plain text, then charts, then tables, then listings. */
export interface Section {
  readonly heading: string
  readonly text?: readonly string[]
  readonly charts?: readonly ChartOptions[]
  readonly tables?: readonly Table[]
  /** Text whose lines and spaces stay as they are. */
  readonly listings?: readonly string[]
}

const style = [
  ':root{color-scheme:light dark;--ink:#1c2128;--faint:#57606a;--line:#d9dee4;--paper:#fff}',
  '@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--faint:#a3adb8;--line:#363d47;--paper:#14181d}}',
  'body{margin:2rem auto;max-width:60rem;padding:0 1rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}',
  'h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.5rem}figure{margin:1rem 0}svg{max-width:100%;height:auto}',
  '.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;margin:1rem 0}caption{text-align:left;color:var(--faint)}',
  'th,td{padding:.25rem .75rem;border-bottom:1px solid var(--line);text-align:left}.number{text-align:right;font-variant-numeric:tabular-nums}',
].join('')

/** A self-contained HTML page: no scripts and nothing from outside, which its own content policy forbids; light and dark. */
export function page(title: string, sections: readonly Section[]): string {
  const body = [element('h1', {}, escapeXml(title)), ...sections.map(section)].join('\n')
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escapeXml(title)}</title>
<style>${style}</style>
</head>
<body>
${body}
</body>
</html>
`
}

function section({ charts = [], heading, listings = [], tables = [], text = [] }: Section): string {
  return [
    '<section>',
    element('h2', {}, escapeXml(heading)),
    ...text.map((paragraph) => element('p', {}, escapeXml(paragraph))),
    ...charts.map((chart) => element('figure', {}, chartSvg(chart))),
    ...tables.map(table),
    ...listings.map((listing) => element('pre', { class: 'scroll' }, escapeXml(listing))),
    '</section>',
  ].join('\n')
}

function table({ caption, columns, rows }: Table): string {
  const isNumeric = columns.map((_, column) => typeof rows[0]?.[column] === 'number')
  const cell = (kind: 'td' | 'th', value: string | number, column: number) => {
    const text = escapeXml(typeof value === 'number' ? value.toLocaleString('en-US') : value)
    const right = typeof value === 'number' || isNumeric[column] === true
    return `<${kind}${right ? ' class="number"' : ''}>${text}</${kind}>`
  }
  const row = (kind: 'td' | 'th', cells: readonly (string | number)[]) =>
    `<tr>${cells.map((value, column) => cell(kind, value, column)).join('')}</tr>`
  return [
    '<div class="scroll"><table>',
    caption === undefined ? '' : `<caption>${escapeXml(caption)}</caption>`,
    `<thead>${row('th', columns)}</thead>`,
    `<tbody>${rows.map((cells) => row('td', cells)).join('\n')}</tbody>`,
    '</table></div>',
  ].join('')
}
