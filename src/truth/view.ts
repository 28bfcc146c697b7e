import type { WorkerRecord } from './record.ts'

/** What /admin/workers shows of the truth check of a worker. */
export function truthView({ worker, native, findings }: WorkerRecord): object {
  const found = findings.list()
  const red = worker.degraded !== null && worker.degraded !== 'block_size_unknown'
  const mark = red ? 'red' : found.length > 0 ? 'amber' : null
  const reason = native.kind === 'unverified' ? native.reason : native.kind === 'mismatch' ? native.found : null
  return {
    nativeHash: { state: native.kind, ...(reason === null ? {} : { reason }) },
    findings: found.map(({ cause, text, sinceMs }) => ({ cause, text, since: new Date(sinceMs).toISOString() })),
    ...(mark === null ? {} : { mark }),
  }
}
