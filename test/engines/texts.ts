/** Seeded text, so that every run sends the same prompts. */
const words =
  'the cache of an engine keeps what it has read and a request that begins alike finds it there again so that only its end must be computed naïve 你好 tokens größer 12345 {"a": 1} tab\tand\nline'.split(
    ' ',
  )

export function text(seed: number, wordCount: number): string {
  let state = (seed * 2654435761 + 1) >>> 0
  const chosen: string[] = []
  for (let i = 0; i < wordCount; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    chosen.push(words[(state >>> 8) % words.length] ?? '')
  }
  return `${seed}: ${chosen.join(' ')}.`
}

export const weatherTool = {
  type: 'function',
  function: {
    name: 'weather',
    description: 'Tells the weather in a “city”',
    parameters: {
      type: 'object',
      properties: { city: { type: 'string' }, days: { type: 'integer', default: 1 } },
      required: ['city'],
    },
  },
}
