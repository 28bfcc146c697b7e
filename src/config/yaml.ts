import { readFileSync } from 'node:fs'
import { LineCounter, parseDocument } from 'yaml'
import { RouterError } from '../errors.ts'

/**
 * What a YAML file holds.
 * @param what the file is, for messages
 * @throws RouterError CONFIG_UNREADABLE, or CONFIG_INVALID with the line of a syntax fault
 */
export function readYaml(file: string, what: string): unknown {
  let source: string
  try {
    source = readFileSync(file, 'utf8')
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new RouterError('CONFIG_UNREADABLE', `Cannot read the ${what} ${file}: ${reason}`, { cause })
  }
  return parseYaml(source, file)
}

/** @throws RouterError CONFIG_INVALID with the line of a syntax fault */
export function parseYaml(source: string, file: string): unknown {
  const lines = new LineCounter()
  const document = parseDocument(source, {
    lineCounter: lines,
    prettyErrors: false,
    uniqueKeys: true,
    logLevel: 'error',
  })
  const fault = document.errors[0]
  if (fault !== undefined) {
    const { line, col } = lines.linePos(fault.pos[0])
    throw new RouterError('CONFIG_INVALID', `${file}:${line}:${col}: not valid YAML: ${fault.message}`)
  }
  try {
    return document.toJS({ maxAliasCount: 100 }) as unknown
  } catch (cause) {
    throw new RouterError('CONFIG_INVALID', `${file}: not valid YAML: ${cause instanceof Error ? cause.message : ''}`)
  }
}
