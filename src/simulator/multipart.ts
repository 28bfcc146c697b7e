/** One field of a form; a file has a name of its own. */
export interface FormPart {
  readonly name: string
  readonly fileName: string | null
  readonly content: Buffer
}

/** Takes a `multipart/form-data` body apart (RFC 7578); null where it is not one. */
export function formParts(body: Buffer, contentType: string): readonly FormPart[] | null {
  const [, quoted, bare] = /;\s*boundary=(?:"([^"]+)"|([^;\s]+))/i.exec(contentType) ?? []
  const boundary = quoted ?? bare
  if (boundary === undefined) return null
  const parts: FormPart[] = []
  const mark = `\r\n--${boundary}`
  // A line break in front makes the first mark look like the others.
  const bytes = Buffer.concat([Buffer.from('\r\n'), body])
  let at = bytes.indexOf(mark)
  while (at >= 0) {
    const start = at + mark.length
    if (bytes.toString('latin1', start, start + 2) === '--') return parts
    const headEnd = bytes.indexOf('\r\n\r\n', start)
    const end = bytes.indexOf(mark, start)
    if (headEnd < 0 || end < headEnd) return null
    const head = bytes.toString('utf8', start, headEnd)
    const name = /;\s*name="([^"]*)"/i.exec(head)?.[1]
    if (name === undefined) return null
    const fileName = /;\s*filename="([^"]*)"/i.exec(head)?.[1] ?? null
    parts.push({ name, fileName, content: bytes.subarray(headEnd + 4, end) })
    at = end
  }
  return null
}
