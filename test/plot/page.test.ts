import assert from 'node:assert/strict'
import { test } from 'node:test'
import { page } from '../../src/plot/page.ts'

const chart = {
  title: 'Hits',
  x: { title: 'blocks' },
  y: { title: 'ratio' },
  series: [{ name: 'a', points: [{ x: 1, y: 2 }] }],
}

test('a page holds its sections in order: text, charts, tables', () => {
  const html = page('Sizing', [
    { heading: 'First', text: ['One paragraph.'], charts: [chart] },
    { heading: 'Second', tables: [{ caption: 'Tiers', columns: ['tier', 'bytes'], rows: [['gpu', 1234567]] }] },
  ])
  const places = ['<h1>Sizing', '<h2>First', 'One paragraph.', '<svg', '<h2>Second', '<caption>Tiers'].map((part) =>
    html.indexOf(part),
  )
  assert.ok(
    places.every((place, index) => place > (places[index - 1] ?? 0)),
    places.join(' '),
  )
  assert.match(html, /<th class="number">bytes<\/th>.*<td>gpu<\/td><td class="number">1,234,567<\/td>/s)
})

test('a page forbids itself whatever comes from outside, and has no script', () => {
  const html = page('x', [{ heading: 'y', charts: [chart] }])
  assert.match(html, /Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/)
  assert.doesNotMatch(html, /<script|href=|src=|url\(|@import/)
})

test('a page is readable on dark paper', () => {
  const html = page('x', [{ heading: 'y', charts: [chart] }])
  assert.equal(html.match(/prefers-color-scheme:dark/g)?.length, 2)
  assert.match(html, /color-scheme:light dark/)
})

test('text of a page is escaped', () => {
  const html = page('<b>', [{ heading: 'a & b', text: ['<i>'], tables: [{ columns: ['<u>'], rows: [['<s>']] }] }])
  assert.doesNotMatch(html, /<b>|<i>|<u>|<s>/)
})
