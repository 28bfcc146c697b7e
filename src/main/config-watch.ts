import { readFileSync, statSync } from 'node:fs'
import type { Config } from '../config/schema.ts'
import { WatchedFile } from '../workers/discovery/watched-file.ts'

/** Where the config came from. */
export interface ConfigSource {
  /** Watched, if it is a regular file. */
  readonly file: string | null
  /** Reads it again. @throws RouterError for a config that is not good */
  readonly load: () => Config
}

/**
 * Remembers what the config file holds now, and tells from its start on when it holds something else or cannot be read.
 * Null where there is no file, where none is to be watched, or where it cannot be read twice, such as a pipe.
 */
export function configWatch(
  source: ConfigSource | undefined,
  { watch, pollMs }: Config['reload'],
  changed: () => void,
): WatchedFile | null {
  const path = source?.file ?? null
  if (path === null || !watch) return null
  const known = textOf(path)
  return known === null ? null : new WatchedFile({ path, pollMs, known, changed, failed: changed })
}

function textOf(file: string): string | null {
  try {
    return statSync(file).isFile() ? readFileSync(file, 'utf8') : null
  } catch {
    return null
  }
}
