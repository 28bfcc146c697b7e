import { symbol } from 'd3-shape'
import { seriesLook } from './style.ts'
import { element, escapeXml } from './xml.ts'

interface Entry {
  readonly name: string
  readonly index: number
  readonly left: number
}

const letterPx = 6.6
const markPx = 28
const gapPx = 20
const rowPx = 20

/** The names of the series, broken into rows that fit; none for a single series, which the title names. */
export function legendRows(
  series: readonly { readonly name: string }[],
  widthPx: number,
): readonly (readonly Entry[])[] {
  if (series.length < 2) return []
  const rows: Entry[][] = [[]]
  let left = 0
  series.forEach(({ name }, index) => {
    // Widths of letters are only guessed: an SVG cannot measure its own text.
    const width = markPx + name.length * letterPx
    if (left > 0 && left + width > widthPx) {
      rows.push([])
      left = 0
    }
    rows.at(-1)?.push({ name, index, left })
    left += width + gapPx
  })
  return rows
}

export function drawLegend(rows: readonly (readonly Entry[])[], left: number, top: number): string[] {
  return rows.flatMap((row, rowIndex) =>
    row.map((entry) => {
      const look = seriesLook(entry.index)
      const path = symbol(look.symbol, 44)() ?? ''
      return element(
        'g',
        { class: look.className, transform: `translate(${left + entry.left} ${top + rowIndex * rowPx})` },
        [
          element('line', { class: 'line', x1: 0, x2: 22, y1: -4, y2: -4, 'stroke-dasharray': look.dash }),
          element('path', { class: 'mark', d: path, transform: 'translate(11 -4)' }),
          element('text', { x: markPx, y: 0 }, escapeXml(entry.name)),
        ],
      )
    }),
  )
}
