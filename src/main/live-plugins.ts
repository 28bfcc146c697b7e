import { readFileSync } from 'node:fs'
import type { Config } from '../config/schema.ts'
import type { PolicyPlugin } from '../routing/policy.ts'
import type { Log } from '../telemetry/log.ts'
import { WatchedFile } from '../workers/discovery/watched-file.ts'
import { checkedPlugins, profileFiles } from './policies.ts'
import { pluginFiles } from './plugins.ts'
import type { Reloadable } from './reload.ts'

export interface LivePluginsOptions {
  readonly config: Config
  /** Those of the config. */
  readonly plugins: readonly PolicyPlugin[]
  readonly log: Log
  /** A plugin's or a profile's file has changed. */
  readonly changed: () => void
  /** Other plugins are in force: profiles have to be made anew. */
  readonly renewed: () => void
}

/** The policy plugins in force, and the watch over their files and those that give profiles. */
export class LivePlugins {
  readonly #o: LivePluginsOptions
  #plugins: readonly PolicyPlugin[]
  #watches: WatchedFile[] = []
  #isStarted = false

  constructor(options: LivePluginsOptions) {
    this.#o = options
    this.#plugins = options.plugins
  }

  get list(): readonly PolicyPlugin[] {
    return this.#plugins
  }

  /** All of what may fail happens before the change. */
  readonly reloadable: Reloadable = async (next) => {
    const plugins = await checkedPlugins(next)
    return () => {
      const { log, renewed } = this.#o
      const isNews = plugins.length !== this.#plugins.length || plugins.some((plugin, i) => plugin !== this.#plugins[i])
      this.#plugins = plugins
      if (this.#isStarted) this.#watch(next)
      if (!isNews) return
      log.info({ plugins: plugins.map(({ type }) => type) }, 'policy plugins loaded anew')
      renewed()
    }
  }

  start(): void {
    this.#isStarted = true
    this.#watch(this.#o.config)
  }

  stop(): void {
    this.#isStarted = false
    for (const watch of this.#watches) watch.stop()
    this.#watches = []
  }

  #watch(config: Config): void {
    const { changed } = this.#o
    for (const watch of this.#watches) watch.stop()
    const { watch: isWatched, pollMs } = config.reload
    this.#watches = (isWatched ? [...pluginFiles(config), ...profileFiles(config)] : []).map(
      (path) => new WatchedFile({ path, pollMs, known: textOf(path), changed, failed: changed }),
    )
    for (const watch of this.#watches) watch.start()
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
