import { curveLinear, curveStepAfter, line, symbol } from 'd3-shape'
import { axisScale, drawAxes, type Axis, type Frame, type Scale } from './axis.ts'
import { drawLegend, legendRows } from './legend.ts'
import { chartStyle, seriesLook } from './style.ts'
import { element, escapeXml } from './xml.ts'

export interface Point {
  readonly x: number
  readonly y: number
  /** Ends of the error bar, such as a confidence interval, in the axis's own units. */
  readonly xRange?: readonly [low: number, high: number]
  readonly yRange?: readonly [low: number, high: number]
  /** A word written beside the point, such as the load at which it was measured. */
  readonly label?: string
}

export interface Series {
  readonly name: string
  /** In the order in which the line joins them. */
  readonly points: readonly Point[]
  /** Default `straight`; `none` leaves the points alone. */
  readonly line?: 'straight' | 'step' | 'none'
  /** Whether each point gets a mark. Default: up to 40 points. */
  readonly marks?: boolean
}

/** A value drawn right across, such as a limit, with its name. */
export interface Level {
  readonly axis: 'x' | 'y'
  readonly at: number
  readonly label: string
}

export interface ChartOptions {
  readonly title: string
  readonly x: Axis
  readonly y: Axis
  readonly series: readonly Series[]
  readonly levels?: readonly Level[]
  /** Default 760 × 440, the legend included. */
  readonly widthPx?: number
  readonly heightPx?: number
}

const markLimit = 40
const markAreaPx = 44

/**
 * A line chart as one self-contained SVG: readable on light and dark paper, no scripts, nothing from outside. Points that an
 * axis cannot show (not finite or beyond 10^±100; zero or below on a logarithmic axis) are left out and interrupt their line.
 */
export function chartSvg(options: ChartOptions): string {
  const { heightPx = 440, series, title, widthPx = 760 } = options
  const legend = legendRows(series, widthPx - 84)
  const frame: Frame = { left: 72, right: widthPx - 24, top: 46 + 20 * legend.length, bottom: heightPx - 58 }
  const { xScale, yScale } = scales(options, frame)
  const drawn = [
    element('title', {}, escapeXml(title)),
    element('desc', {}, escapeXml(described(options))),
    element('style', {}, chartStyle),
    element('rect', { class: 'paper', width: widthPx, height: heightPx }),
    element('text', { class: 'title', x: 20, y: 26 }, escapeXml(title)),
    ...drawLegend(legend, 20, 48),
    ...drawAxes(options.x, options.y, xScale, yScale, frame),
    ...(options.levels ?? []).map((level) => drawLevel(level, xScale, yScale, frame)),
    ...series.map((one, index) => drawSeries(one, index, options, xScale, yScale)),
  ]
  const size = { width: widthPx, height: heightPx, viewBox: `0 0 ${widthPx} ${heightPx}` }
  return element('svg', { xmlns: 'http://www.w3.org/2000/svg', class: 'chart', role: 'img', ...size }, drawn)
}

function scales({ levels = [], series, x, y }: ChartOptions, frame: Frame): { xScale: Scale; yScale: Scale } {
  const points = series.flatMap((one) => one.points)
  const levelsOf = (axis: 'x' | 'y') => levels.filter((level) => level.axis === axis).map(({ at }) => at)
  const xs = points.flatMap((point) => [point.x, ...(point.xRange ?? [])]).concat(levelsOf('x'))
  const ys = points.flatMap((point) => [point.y, ...(point.yRange ?? [])]).concat(levelsOf('y'))
  const { bottom, left, right, top } = frame
  return {
    xScale: axisScale(x, xs, [left, right], Math.max(2, Math.floor((right - left) / 80)), false),
    yScale: axisScale(y, ys, [bottom, top], Math.max(2, Math.floor((bottom - top) / 50)), true),
  }
}

function described({ series, x, y }: ChartOptions): string {
  return `${y.title} against ${x.title}: ${series.map(({ name }) => name).join(', ')}`
}

function drawLevel({ at, axis, label }: Level, xScale: Scale, yScale: Scale, frame: Frame): string {
  const { bottom, left, right, top } = frame
  const scale = axis === 'x' ? xScale : yScale
  if (!scale.shows(at)) return ''
  const place = scale.at(at)
  // Names of upright lines stand above, on the side that has room; those of level ones on the left, out of their way.
  const isNearEnd = axis === 'x' && place > right - (right - left) / 5
  const [ends, text] =
    axis === 'x'
      ? [
          { x1: place, x2: place, y1: top, y2: bottom },
          { x: place + (isNearEnd ? -4 : 4), y: top + 12, 'text-anchor': isNearEnd ? 'end' : undefined },
        ]
      : [
          { x1: left, x2: right, y1: place, y2: place },
          { x: left + 4, y: place - 5 },
        ]
  return element('line', { class: 'level', ...ends }) + element('text', { class: 'faint', ...text }, escapeXml(label))
}

function drawSeries(series: Series, index: number, options: ChartOptions, xScale: Scale, yScale: Scale): string {
  const look = seriesLook(index)
  const shown = ({ x, y }: Point) => xScale.shows(x) && yScale.shows(y)
  const parts: string[] = []
  if (series.line !== 'none') {
    const path = line<Point>()
      .defined(shown)
      .x(({ x }) => xScale.at(x))
      .y(({ y }) => yScale.at(y))
      .curve(series.line === 'step' ? curveStepAfter : curveLinear)
    parts.push(element('path', { class: 'line', d: path(series.points) ?? '', 'stroke-dasharray': look.dash }))
  }
  const points = series.points.filter(shown)
  for (const point of points) parts.push(...drawErrorBars(point, xScale, yScale))
  const mark = symbol(look.symbol, markAreaPx)() ?? ''
  if (series.line === 'none' || (series.marks ?? points.length <= markLimit))
    for (const point of points) parts.push(drawMark(point, mark, series.name, options, xScale, yScale))
  return element('g', { class: look.className }, parts)
}

function drawErrorBars({ x, xRange, y, yRange }: Point, xScale: Scale, yScale: Scale): string[] {
  const bars: string[] = []
  const bar = (x1: number, x2: number, y1: number, y2: number) =>
    bars.push(element('line', { class: 'bar', x1, x2, y1, y2 }))
  const capPx = 4
  if (yRange?.every(yScale.shows) === true) {
    const [at, low, high] = [xScale.at(x), yScale.at(yRange[0]), yScale.at(yRange[1])]
    bar(at, at, low, high)
    for (const end of [low, high]) bar(at - capPx, at + capPx, end, end)
  }
  if (xRange?.every(xScale.shows) === true) {
    const [at, low, high] = [yScale.at(y), xScale.at(xRange[0]), xScale.at(xRange[1])]
    bar(low, high, at, at)
    for (const end of [low, high]) bar(end, end, at - capPx, at + capPx)
  }
  return bars
}

/** The mark of a point; its figures appear when the mouse rests on it. */
function drawMark(
  point: Point,
  path: string,
  name: string,
  { x, y }: ChartOptions,
  xScale: Scale,
  yScale: Scale,
): string {
  const [left, top] = [xScale.at(point.x), yScale.at(point.y)]
  const exact = (value: number, axis: Axis) => axis.format?.(value) ?? String(Number(value.toPrecision(6)))
  const told = `${name}${point.label === undefined ? '' : `, ${point.label}`}: ${x.title} ${exact(point.x, x)}, ${y.title} ${exact(point.y, y)}`
  const at = `translate(${String(Math.round(left * 100) / 100)} ${String(Math.round(top * 100) / 100)})`
  const mark = element('path', { class: 'mark', d: path, transform: at }, element('title', {}, escapeXml(told)))
  if (point.label === undefined) return mark
  return mark + element('text', { class: 'faint', x: left + 7, y: top - 7 }, escapeXml(point.label))
}
