import type { Discovery, Findings } from './discovery.ts'
import { WatchedFile } from './watched-file.ts'

export interface FileOptions {
  readonly path: string
  readonly pollMs: number
}

/** Engines listed in a file, which is watched. `parse` throws for a list that is not one. */
export function fileDiscovery<Given>(
  options: FileOptions,
  parse: (text: string, path: string) => readonly Given[],
  findings: Findings<Given>,
): Discovery {
  return new WatchedFile({
    ...options,
    changed: (text) => {
      let engines: readonly Given[]
      try {
        engines = parse(text, options.path)
      } catch (error) {
        findings.failed((error as Error).message)
        return
      }
      findings.found(engines)
    },
    same: () => findings.confirmed(),
    failed: (reason) => findings.failed(reason),
  })
}
