const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }

/** Text as it may stand between tags and in attributes of HTML and SVG; characters that XML forbids are left out. */
export function escapeXml(text: string): string {
  return text
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, '')
    .replace(/[&<>"]/g, (found) => entities[found] ?? '')
}

/** One element: numbers are rounded to a hundredth, an attribute that is undefined is left out, content goes in as it is. */
export function element(
  name: string,
  attributes: Readonly<Record<string, string | number | undefined>>,
  content: string | readonly string[] = '',
): string {
  const written = Object.entries(attributes)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => ` ${key}="${typeof value === 'number' ? rounded(value) : escapeXml(value ?? '')}"`)
    .join('')
  const inner = typeof content === 'string' ? content : content.join('')
  return `<${name}${written}>${inner}</${name}>`
}

function rounded(value: number): string {
  return String(Math.round(value * 100) / 100)
}
