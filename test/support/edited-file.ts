import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'

export interface EditedFile {
  readonly path: string
  readonly write: (text: string) => void
}

/** A file in a folder of its own that a test edits; each edit shows in its time, however fast they follow one another. */
export function editedFile(t: TestContext, name: string, text: string): EditedFile {
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-edited-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, name)
  let edits = 0
  const write = (next: string): void => {
    writeFileSync(path, next)
    // Two edits within the file system's clock tick would look like one.
    utimesSync(path, 1_800_000_000, 1_800_000_000 + ++edits)
  }
  write(text)
  return { path, write }
}
