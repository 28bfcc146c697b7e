import type { NotRun } from './scenario.ts'

const redis = 'needs Redis: not built yet'

/** Faults of the list that nothing injects yet, each with its reason. */
export const notRun: readonly NotRun[] = [
  { number: '36', fault: 'Redis is absent at boot', promise: 'ready in ≤ 5 s, serving', reason: redis },
  {
    number: '37',
    fault: 'Redis is held (SIGSTOP) under load',
    promise: 'p99 + < 5 ms, 0 errors, 1 log line per state change; healed ≤ 5 s after SIGCONT',
    reason: redis,
  },
  {
    number: '38',
    fault: 'FLUSHALL, restart empty, -LOADING, -READONLY, OOM, NOSCRIPT',
    promise: 'no crash; rebuilt from events',
    reason: redis,
  },
  { number: '39', fault: 'Redis takes 200 ms', promise: 'request path unchanged', reason: redis },
  {
    number: '40',
    fault: 'two replicas are cut off from each other for 60 s',
    promise: 'decisions differ, errors 0; converge in ≤ 5 s; load counts never negative, none leaked after kill -9',
    reason: redis,
  },
  {
    number: '41',
    fault: 'the clock of one replica jumps by 1 h',
    promise: 'no mass expiry, no negative timer',
    reason: redis,
  },
]
