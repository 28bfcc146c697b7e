import { scaleLinear, scaleLog } from 'd3-scale'
import { shortNumber } from './number-text.ts'
import { element, escapeXml } from './xml.ts'

export interface Axis {
  /** What is shown, with its unit. */
  readonly title: string
  /** `log2` suits sizes and lengths that double. Default `linear`. */
  readonly scale?: 'linear' | 'log' | 'log2'
  /** Where the axis begins and ends; without them at the data, a linear y axis at zero or below. */
  readonly from?: number
  readonly to?: number
  /** The text of a tick; by default four digits with k, M, G. */
  readonly format?: (value: number) => string
}

export interface Scale {
  readonly at: (value: number) => number
  readonly ticks: readonly { readonly at: number; readonly text: string }[]
  /** Whether the axis can show this value: within 10^±100, and above zero on a logarithmic one. */
  readonly shows: (value: number) => boolean
}

/** The scale of an axis over the values to show, drawn between two places in pixels. */
export function axisScale(
  axis: Axis,
  values: readonly number[],
  [start, end]: readonly [number, number],
  wantedTicks: number,
  fromZero: boolean,
): Scale {
  const isLog = axis.scale === 'log' || axis.scale === 'log2'
  const shows = (value: number) => isDrawable(value) && (!isLog || value > 0)
  const [from, to] = bounds(axis, values.filter(shows), isLog, fromZero)
  const format = axis.format ?? shortNumber
  if (isLog) {
    const base = axis.scale === 'log2' ? 2 : 10
    const scale = scaleLog().base(base).domain([from, to]).range([start, end]).clamp(true)
    return { at: scale, ticks: written(logTicks(from, to, base, wantedTicks), scale, format), shows }
  }
  const scale = scaleLinear().domain([from, to]).range([start, end]).clamp(true)
  if (axis.from === undefined && axis.to === undefined) scale.nice(wantedTicks)
  return { at: scale, ticks: written(scale.ticks(wantedTicks), scale, format), shows }
}

/** Beyond 10^±100 the arithmetic of ticks breaks down. */
function isDrawable(value: number): boolean {
  const size = Math.abs(value)
  return value === 0 || (size >= 1e-100 && size <= 1e100)
}

function written(
  values: readonly number[],
  at: (value: number) => number,
  format: (value: number) => string,
): { at: number; text: string }[] {
  return values.map((value) => ({ at: at(value), text: format(value) }))
}

function bounds(axis: Axis, values: readonly number[], isLog: boolean, fromZero: boolean): [number, number] {
  const least = values.reduce((low, value) => Math.min(low, value), Infinity)
  const most = values.reduce((high, value) => Math.max(high, value), -Infinity)
  const none = values.length === 0
  const from = axis.from ?? (none ? (isLog ? 1 : 0) : fromZero && !isLog ? Math.min(0, least) : least)
  const to = axis.to ?? (none ? (isLog ? 10 : 1) : most)
  if (to - from > 1e-9 * Math.max(Math.abs(from), Math.abs(to))) return [from, to]
  // A single value, or nearly so, gets room on both sides, so that it has a place on the axis.
  if (isLog) return [from / 2, from * 2]
  return from === 0 ? [0, 1] : [from - Math.abs(from) / 2, from + Math.abs(from) / 2]
}

/** Powers of the base, thinned out where there are many; 2 and 5 times them where there are few (base 10). */
function logTicks(from: number, to: number, base: number, wantedTicks: number): number[] {
  const exponent = (value: number) => Math.log(value) / Math.log(base)
  const least = Math.ceil(exponent(from) - 1e-9)
  const most = Math.floor(exponent(to) + 1e-9)
  const stride = Math.max(1, Math.ceil((most - least + 1) / wantedTicks))
  const powers: number[] = []
  for (let power = least; power <= most; power += stride) powers.push(base ** power)
  if (base !== 10 || powers.length > wantedTicks / 2) return powers
  const between: number[] = []
  for (let power = least - 1; power <= most; power++)
    for (const multiple of [1, 2, 5]) between.push(multiple * base ** power)
  return between.filter((value) => value >= from * (1 - 1e-9) && value <= to * (1 + 1e-9))
}

export interface Frame {
  readonly left: number
  readonly right: number
  readonly top: number
  readonly bottom: number
}

/** Grid lines, tick texts and titles of both axes. */
export function drawAxes(x: Axis, y: Axis, xScale: Scale, yScale: Scale, frame: Frame): string[] {
  const { bottom, left, right, top } = frame
  return [
    ...xScale.ticks.map(({ at, text }) =>
      [
        element('line', { class: 'grid', x1: at, x2: at, y1: top, y2: bottom }),
        element('text', { class: 'faint', x: at, y: bottom + 18, 'text-anchor': 'middle' }, escapeXml(text)),
      ].join(''),
    ),
    ...yScale.ticks.map(({ at, text }) =>
      [
        element('line', { class: 'grid', x1: left, x2: right, y1: at, y2: at }),
        element('text', { class: 'faint', x: left - 8, y: at + 4, 'text-anchor': 'end' }, escapeXml(text)),
      ].join(''),
    ),
    element('line', { class: 'frame', x1: left, x2: right, y1: bottom, y2: bottom }),
    element(
      'text',
      { class: 'axis', x: (left + right) / 2, y: bottom + 42, 'text-anchor': 'middle' },
      escapeXml(x.title),
    ),
    element(
      'text',
      { class: 'axis', 'text-anchor': 'middle', transform: `translate(16 ${(top + bottom) / 2}) rotate(-90)` },
      escapeXml(y.title),
    ),
  ]
}
