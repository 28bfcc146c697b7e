/** What the events' room counts; `main.ts` wires it to metrics. */
export interface EventCounters {
  /** Events that were applied. */
  event(kind: 'stored' | 'removed' | 'cleared', count: number): void
  /** Events, or parts of them, that were passed over. */
  skipped(reason: string, count: number): void
  /** Batches that were lost between the engine and here. */
  gap(): void
  /** Engine processes that turned out to be other ones. */
  restart(): void
  /** Subscriptions that broke. */
  disconnect(): void
}
