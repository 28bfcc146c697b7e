import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Heap } from '../../src/admission/heap.ts'

test('under any adding, moving and removing, the first of a heap is the least of what it holds', () => {
  const step = fc.tuple(fc.constantFrom('add', 'move', 'remove', 'removeFirst'), fc.nat(), fc.integer())
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 200 }), (steps) => {
      const heap = new Heap<{ heapPlace: number; value: number }>((a, b) => a.value < b.value)
      const held: { heapPlace: number; value: number }[] = []
      for (const [kind, at, value] of steps) {
        const item = kind === 'removeFirst' ? heap.first : held[at % Math.max(1, held.length)]
        if (kind === 'add') {
          const added = { heapPlace: -1, value }
          held.push(added)
          heap.add(added)
        } else if (item !== undefined && kind === 'move') {
          item.value = value
          heap.moved(item)
        } else if (item !== undefined) {
          held.splice(held.indexOf(item), 1)
          heap.remove(item)
          heap.remove(item)
          assert.equal(item.heapPlace, -1)
        }
        assert.equal(heap.size, held.length)
        assert.equal(heap.first?.value, held.length === 0 ? undefined : Math.min(...held.map((one) => one.value)))
      }
    }),
  )
})
