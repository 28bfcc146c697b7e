import type { Aliases } from './aliases.ts'
import type { Announcements } from './announcements.ts'
import type { Blocks } from './blocks.ts'
import type { Holders } from './holders.ts'
import type { MapMemory } from './layout.ts'
import type { Reclaim } from './reclaim.ts'

/** What a flat map is made of, for its own room: on the writing thread only. */
export interface MapParts {
  readonly memory: MapMemory
  readonly blocks: Blocks
  readonly holders: Holders
  readonly aliases: Aliases
  readonly announcements: Announcements
  readonly reclaim: Reclaim
  /** To be called before an incarnation is taken. */
  readonly reserveIncarnation: () => void
}
