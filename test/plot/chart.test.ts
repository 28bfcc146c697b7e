import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { chartSvg, type ChartOptions, type Point } from '../../src/plot/chart.ts'

const plain: ChartOptions = {
  title: 'Hits',
  x: { title: 'blocks', scale: 'log' },
  y: { title: 'hit ratio', from: 0, to: 1 },
  series: [
    { name: 'kv-aware', points: [point(1, 0.1), point(100, 0.5), point(10_000, 0.9)] },
    { name: 'random', points: [point(1, 0.1), point(100, 0.2), point(10_000, 0.3)] },
  ],
}

function point(x: number, y: number, more: Partial<Point> = {}): Point {
  return { x, y, ...more }
}

/** The texts of the SVG that a reader sees. */
function texts(svg: string): string[] {
  return [...svg.matchAll(/<text[^>]*>([^<]*)<\/text>/g)].map(([, text]) => text ?? '')
}

/** Places of the vertices of each line. */
function lines(svg: string): (readonly [number, number])[][] {
  return [...svg.matchAll(/<path class="line" d="([^"]*)"/g)].map(([, path]) =>
    [...(path ?? '').matchAll(/[ML]([\d.-]+),([\d.-]+)/g)].map(([, x, y]) => [Number(x), Number(y)] as const),
  )
}

test('a chart names its axes, its ticks and its series', () => {
  const shown = texts(chartSvg(plain))
  for (const text of ['Hits', 'blocks', 'hit ratio', 'kv-aware', 'random', '1', '10', '100', '1000', '10k'])
    assert.ok(shown.includes(text), `${text} in ${shown.join(' | ')}`)
})

test('a single series needs no legend', () => {
  const [only] = plain.series
  assert.ok(only !== undefined)
  assert.ok(!texts(chartSvg({ ...plain, series: [only] })).includes('kv-aware'))
})

test('equal ratios are equally far apart on a logarithmic axis, and larger is further right and up', () => {
  const [first] = lines(chartSvg(plain))
  assert.ok(first !== undefined)
  const [[x1, y1], [x2, y2], [x3, y3]] = first as [[number, number], [number, number], [number, number]]
  assert.ok(Math.abs(x2 - x1 - (x3 - x2)) < 0.01)
  assert.ok(x1 < x2 && y1 > y2 && y2 > y3)
})

test('a linear y axis begins at zero unless told otherwise', () => {
  const chart = { ...plain, y: { title: 'ms' }, series: [{ name: 'a', points: [point(1, 50), point(2, 60)] }] }
  assert.ok(texts(chartSvg(chart)).includes('0'))
  assert.ok(!texts(chartSvg({ ...chart, y: { title: 'ms', from: 45, to: 65 } })).includes('0'))
})

test('an axis of powers of two has ticks at powers of two', () => {
  const chart: ChartOptions = {
    ...plain,
    x: { title: 'context', scale: 'log2', format: (value) => `${value / 1024}K` },
    series: [{ name: 'a', points: [point(1024, 1), point(131_072, 2)] }],
  }
  const shown = texts(chartSvg(chart))
  for (const text of ['1K', '2K', '32K', '128K']) assert.ok(shown.includes(text), text)
})

test('a point that an axis cannot show is left out and interrupts its line', () => {
  const points = [point(1, 0.1), point(2, 0.2), point(0, 0.3), point(4, NaN), point(5, 0.5), point(6, 0.6)]
  const svg = chartSvg({ ...plain, series: [{ name: 'a', points }] })
  assert.doesNotMatch(svg, /NaN|Infinity/)
  assert.equal(svg.match(/<path class="mark"/g)?.length, 4)
  const path = /<path class="line" d="([^"]*)"/.exec(svg)?.[1] ?? ''
  assert.equal(path.match(/M/g)?.length, 2)
})

test('a range is drawn as an error bar with caps', () => {
  const points = [point(1, 0.5, { yRange: [0.4, 0.6], xRange: [0.9, 1.1] }), point(2, 0.5)]
  const svg = chartSvg({ ...plain, series: [{ name: 'a', points, line: 'none' }] })
  assert.equal(svg.match(/<line class="bar"/g)?.length, 6)
  assert.equal(lines(svg).length, 0)
})

test('a level is drawn and named', () => {
  const svg = chartSvg({ ...plain, levels: [{ axis: 'x', at: 500, label: 'HBM' }] })
  assert.match(svg, /<line class="level"/)
  assert.ok(texts(svg).includes('HBM'))
})

test('the mark of a point tells its figures', () => {
  const svg = chartSvg({ ...plain, series: [{ name: 'a', points: [point(3, 0.25, { label: '8 workers' })] }] })
  assert.match(svg, /<title>a, 8 workers: blocks 3, hit ratio 0\.25<\/title>/)
  assert.ok(texts(svg).includes('8 workers'))
})

test('names are escaped, and characters that XML forbids are dropped', () => {
  const svg = chartSvg({ ...plain, title: 'a < b & "c"\u0007' })
  assert.match(svg, /a &lt; b &amp; &quot;c&quot;</)
  assert.doesNotMatch(svg, /\u0007/)
})

test('a chart needs no script and nothing from outside', () => {
  const svg = chartSvg(plain)
  assert.doesNotMatch(svg, /<script|href|url\(|@import/)
  assert.deepEqual([...svg.matchAll(/https?:[^"]*/g)].map(String), ['http://www.w3.org/2000/svg'])
})

test('more series than hues differ by dashes', () => {
  const series = Array.from({ length: 10 }, (_, index) => ({ name: `s${index}`, points: [point(1, 1), point(2, 2)] }))
  const svg = chartSvg({ ...plain, series })
  assert.match(svg, /<g class="hue-1">.*stroke-dasharray/)
  assert.ok(texts(svg).includes('s9'))
})

test('whatever the points, every drawn place lies on the chart', () => {
  const scale = fc.constantFrom('linear', 'log', 'log2')
  const points = fc.array(fc.record({ x: fc.double(), y: fc.double() }), { maxLength: 8 })
  fc.assert(
    fc.property(scale, scale, points, (x, y, given) => {
      const series = [{ name: 'a', points: given }]
      const svg = chartSvg({ ...plain, x: { title: 'x', scale: x }, y: { title: 'y', scale: y }, series })
      assert.doesNotMatch(svg, /NaN|Infinity/)
      for (const [left, top] of lines(svg).flat())
        assert.ok(left >= 72 && left <= 736 && top >= 46 && top <= 382, `${left} ${top}`)
    }),
  )
})
