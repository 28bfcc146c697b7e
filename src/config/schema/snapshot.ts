import Type from 'typebox'
import { GiB, hourMs, integer, object, text } from './words.ts'

export const snapshot = object(
  {
    file: Type.Optional(
      text('File in which the map is kept between two runs, of this process alone; omitted: it is kept in Redis only.'),
    ),
    intervalSeconds: integer('From the end of one snapshot to the beginning of the next.', 1, 86_400, { default: 60 }),
    deadlineMs: integer('For which the start waits at most for the map to be warm.', 0, hourMs, { default: 30_000 }),
    makeMs: integer('A snapshot that takes longer to make is given up.', 1000, hourMs, { default: 120_000 }),
    maxBytes: integer('A larger snapshot is given up.', 1024 * 1024, 64 * GiB, { default: 4 * GiB }),
    sliceMs: integer('For which making or reading one holds up the thread at a time.', 1, 100, { default: 1 }),
  },
  {
    default: {},
    description:
      'Snapshots of the map, from which a router starts warm: in Redis where that is configured, or in a file.',
  },
)
