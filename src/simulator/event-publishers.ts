import type { LifeOptions } from './flavour.ts'
import { EventPublisher } from './event-publisher.ts'
import type { KvEvent } from './kv-event.ts'

export interface PublishersOptions extends Pick<LifeOptions, 'clock' | 'random' | 'wallSeconds' | 'ports' | 'events'> {
  readonly ranks: number
  /** Of each rank, what of a step's events is told; left out: all. */
  readonly toldOf?: (rank: number) => (events: readonly KvEvent[]) => readonly KvEvent[]
  readonly encode: (events: readonly KvEvent[], timestampSeconds: number, rank: number) => Buffer
}

/** Opens a publisher for each rank, with a port for its events and one for their replay; all or none. */
export async function openPublishers(options: PublishersOptions): Promise<readonly EventPublisher[]> {
  const { events, ranks, ports, encode, toldOf } = options
  if (events === null) return []
  const publishers: EventPublisher[] = []
  try {
    for (let rank = 0; rank < ranks; rank++) {
      const publisher = await EventPublisher.open({
        ...options,
        ...events,
        host: ports.host,
        ...(toldOf === undefined ? {} : { told: toldOf(rank) }),
        encode: (batch, timestampSeconds) => encode(batch, timestampSeconds, rank),
        eventsPort: ports.of('events', rank),
        replayPort: ports.of('replay', rank),
      })
      publishers.push(publisher)
      ports.keep('events', rank, publisher.eventsPort)
      ports.keep('replay', rank, publisher.replayPort)
    }
    return publishers
  } catch (fault) {
    await Promise.all(publishers.map((publisher) => publisher.close()))
    throw fault
  }
}

/** Where rank 0 is to be heard. */
export function eventPlaces({
  events,
  ports,
}: Pick<LifeOptions, 'events' | 'ports'>): Readonly<Record<string, string>> {
  if (events === null) return {}
  return { events: `tcp://${ports.reachable('events')}`, replay: `tcp://${ports.reachable('replay')}` }
}
