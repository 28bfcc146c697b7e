import type { SimulatorTokenizer } from '../../src/simulator/tokenizer.ts'

/** A tokenizer with one token for each word and the space before it, numbered from 100 in the order of appearance. */
export function toyTokenizer(): SimulatorTokenizer {
  const ids = new Map<string, number>()
  const pieces = new Map<number, string>()
  const start = 1
  const encode = (text: string): number[] =>
    (text.match(/\s*\S+|\s+$/g) ?? []).map((piece) => {
      const id = ids.get(piece) ?? 100 + ids.size
      ids.set(piece, id)
      pieces.set(id, piece)
      return id
    })
  return {
    vocabularySize: 100_000,
    chat({ messages }) {
      const turns = messages as readonly { role: string; content: string }[]
      const text = turns.map(({ role, content }) => `<${role}> ${content}\n`).join('') + '<assistant>'
      return Promise.resolve(Uint32Array.from([start, ...encode(text)]))
    },
    text(text, addSpecialTokens) {
      return Promise.resolve(Uint32Array.from(addSpecialTokens ? [start, ...encode(text)] : encode(text)))
    },
    messagesRules: () => ({ inlineSystem: 'kept', disabledThinkingEffort: 'none' }),
    detokenize(tokens) {
      return Promise.resolve(Array.from(tokens, (id) => pieces.get(id) ?? `<${id}>`).join(''))
    },
  }
}
