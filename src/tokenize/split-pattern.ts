/**
 * A pre-tokenizer's pattern as a JavaScript one, or null where the two languages (Oniguruma and ECMAScript with the `u` flag)
 * might not agree on the texts that `surelySplitAlike` lets through. They share leftmost-first alternation, greediness,
 * lookaheads and \p{…}; what they do not share is refused: anchors, dots, POSIX and nested classes, possessive quantifiers,
 * and options other than the one group of case-insensitive letters that these patterns use.
 */
export function splitPattern(source: string): RegExp | null {
  const plain = source.replace(
    /\(\?i:([a-z'|]+)\)/g,
    (_, letters: string) => `(?:${letters.replace(/[a-z]/g, (letter) => `[${letter}${letter.toUpperCase()}]`)})`,
  )
  if (!isShared(plain)) return null
  try {
    return new RegExp(plain, 'gu')
  } catch {
    return null
  }
}

function isShared(source: string): boolean {
  let inClass = false
  for (let at = 0; at < source.length; at += 1) {
    const character = source[at] as string
    if (character === '\\') {
      at += 1
      // Letters that mean the same in both; \p must name a category. Punctuation may be escaped freely.
      if (!/[sSpPrnt]|[^a-zA-Z0-9]/.test(source[at] ?? '')) return false
      if (/[pP]/.test(source[at] ?? '')) at = source.indexOf('}', at)
    } else if (inClass) {
      if (character === '[' || (character === '&' && source[at + 1] === '&')) return false
      if (character === ']') inClass = false
    } else if (character === '[') {
      inClass = true
      if (source[at + 1] === '^') at += 1
      if (source[at + 1] === ']') return false
    } else if (character === '^' || character === '$' || character === '.') {
      return false
    } else if ('?*+}'.includes(character) && source[at + 1] === '+') {
      return false
    } else if (character === '(' && source[at + 1] === '?' && !/^\(\?[:!=]/.test(source.slice(at, at + 3))) {
      return false
    }
  }
  return true
}

/**
 * Whether a text has only characters whose class and case the two regular expression engines, and their versions of Unicode,
 * cannot disagree on: ASCII and the long-settled letters, ideographs, punctuation, symbols and emoji of the ranges below. Left out
 * on purpose: combining marks, spaces of unusual width, the long s and the Kelvin sign (which fold to s and k), private use.
 */
export function surelySplitAlike(text: string): boolean {
  return !unsettled.test(text)
}

const settled = [
  '\\0-\\x7f',
  '\\xa0-\\u017e\\u0180-\\u024f',
  '\\u0391-\\u03a1\\u03a3-\\u03c9',
  '\\u0410-\\u044f\\u0401\\u0451',
  '\\u2010-\\u2027\\u2030-\\u203a',
  '\\u20ac\\u2190-\\u21ff\\u2200-\\u22ff\\u2500-\\u25ff',
  '\\u3001-\\u3015\\u3041-\\u3094\\u30a1-\\u30fa\\u30fc',
  '\\u4e00-\\u9fa5\\uac00-\\ud7a3',
  '\\uff01-\\uff5e',
  // Emoji of Unicode 9 and before, with what joins and styles them.
  '\\u2600-\\u27bf\\u{1f300}-\\u{1f64f}\\u{1f680}-\\u{1f6c5}\\u200d\\ufe0f',
]
const unsettled = new RegExp(`[^${settled.join('')}]`, 'u')
