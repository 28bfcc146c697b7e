import { symbolCircle, symbolDiamond, symbolSquare, symbolTriangle, type SymbolType } from 'd3-shape'

/** Hues that stay apart for most colour-blind readers, each in a shade for light and one for dark paper. */
const hues: readonly (readonly [light: string, dark: string])[] = [
  ['#2a78d6', '#3987e5'],
  ['#e34948', '#e66767'],
  ['#1a9c6d', '#199e70'],
  ['#4a3aa7', '#9085e9'],
  ['#c98500', '#eda100'],
  ['#d3568b', '#e87ba4'],
  ['#eb6834', '#f0803c'],
  ['#5f6b7a', '#9aa6b5'],
]

const symbols: readonly SymbolType[] = [symbolCircle, symbolSquare, symbolTriangle, symbolDiamond]

/** How the series at `index` looks: a class for its hue, and a mark and dashes that tell it apart without colour too. */
export function seriesLook(index: number): {
  readonly className: string
  readonly symbol: SymbolType
  readonly dash?: string
} {
  const round = Math.floor(index / hues.length)
  const symbol = symbols[(index + round) % symbols.length] ?? symbolCircle
  const className = `hue-${index % hues.length}`
  return round === 0 ? { className, symbol } : { className, symbol, dash: round === 1 ? '6 4' : '2 3' }
}

/** The style of every chart: within the SVG, so that the file alone is readable on light and dark paper. */
export const chartStyle = [
  '.chart{font:12px system-ui,sans-serif;--ink:#1c2128;--faint:#57606a;--grid:#d9dee4;--paper:#fff}',
  hueRules(0),
  `@media(prefers-color-scheme:dark){.chart{--ink:#e6e9ed;--faint:#a3adb8;--grid:#363d47;--paper:#14181d}${hueRules(1)}}`,
  '.chart .paper{fill:var(--paper)}.chart text{fill:var(--ink)}.chart .faint{fill:var(--faint)}',
  '.chart .title{font-size:15px;font-weight:600}.chart .axis{font-size:13px}',
  '.chart .grid{stroke:var(--grid)}.chart .frame{stroke:var(--faint)}.chart .level{stroke:var(--faint);stroke-dasharray:3 3}',
  '.chart .line{fill:none;stroke:var(--hue);stroke-width:2;stroke-linejoin:round}.chart .bar{stroke:var(--hue);stroke-width:1.5}',
  '.chart .mark{fill:var(--hue);stroke:var(--paper)}',
].join('')

function hueRules(shade: 0 | 1): string {
  return hues.map((hue, index) => `.chart .hue-${index}{--hue:${hue[shade]}}`).join('')
}
