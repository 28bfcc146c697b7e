/**
 * Command-line flags of `serve`, each with its place in the config. The environment name is `WARMROUTE_` and the flag in
 * upper snake case (decision 29). Names that sglang-router has too are sglang-router's.
 */
export interface Flag {
  readonly name: string
  readonly path: readonly string[]
  readonly kind: 'text' | 'integer' | 'list'
  readonly help: string
  /** Multiplies the given number into the option's unit. */
  readonly factor?: number
}

export const flags: readonly Flag[] = [
  { name: 'host', path: ['listen', 'host'], kind: 'text', help: 'address of the public port' },
  { name: 'port', path: ['listen', 'port'], kind: 'integer', help: 'public port' },
  { name: 'admin-host', path: ['admin', 'host'], kind: 'text', help: 'address of the admin port' },
  { name: 'admin-port', path: ['admin', 'port'], kind: 'integer', help: 'admin port (default: public port + 1)' },
  { name: 'worker-urls', path: ['workerUrls'], kind: 'list', help: 'engines to route to, no config file needed' },
  {
    name: 'model-path',
    path: ['modelPath'],
    kind: 'text',
    help: 'directory with tokenizer.json and tokenizer_config.json',
  },
  { name: 'policy', path: ['profile'], kind: 'text', help: 'routing profile (default: kv-aware)' },
  { name: 'log-level', path: ['log', 'level'], kind: 'text', help: 'debug, info, warn, error or silent' },
  { name: 'max-payload-size', path: ['limits', 'bodyBytes'], kind: 'integer', help: 'largest request body in bytes' },
  { name: 'queue-size', path: ['admission', 'queue', 'requests'], kind: 'integer', help: 'requests that may wait' },
  {
    name: 'queue-timeout-secs',
    path: ['admission', 'queue', 'timeoutMs'],
    kind: 'integer',
    factor: 1000,
    help: 'longest wait in the queue',
  },
  {
    name: 'request-timeout-secs',
    path: ['timeouts', 'totalMs'],
    kind: 'integer',
    factor: 1000,
    help: 'for a whole non-streaming answer',
  },
  {
    name: 'health-check-interval-secs',
    path: ['health', 'intervalMs'],
    kind: 'integer',
    factor: 1000,
    help: 'between two health checks',
  },
  {
    name: 'health-check-timeout-secs',
    path: ['health', 'timeoutMs'],
    kind: 'integer',
    factor: 1000,
    help: 'for one health check',
  },
  { name: 'health-check-endpoint', path: ['health', 'path'], kind: 'text', help: 'path that is checked' },
  {
    name: 'health-failure-threshold',
    path: ['health', 'failures'],
    kind: 'integer',
    help: 'failed checks that make a worker unhealthy',
  },
  {
    name: 'shutdown-grace-period-secs',
    path: ['shutdown', 'graceMs'],
    kind: 'integer',
    factor: 1000,
    help: 'for running answers after SIGTERM',
  },
  { name: 'map-budget-bytes', path: ['map', 'budgetBytes'], kind: 'integer', help: 'most memory for the map' },
  { name: 'tokenizer-threads', path: ['tokenizer', 'threads'], kind: 'integer', help: 'threads for long prompts' },
  { name: 'key-secret', path: ['keys', 'secret'], kind: 'text', help: 'secret in every block key' },
  { name: 'redis-url', path: ['redis', 'url'], kind: 'text', help: 'Redis that replicas share their map through' },
  { name: 'redis-username', path: ['redis', 'username'], kind: 'text', help: 'user at Redis' },
  { name: 'redis-password', path: ['redis', 'password'], kind: 'text', help: 'password at Redis' },
  { name: 'redis-prefix', path: ['redis', 'prefix'], kind: 'text', help: 'what all keys in Redis begin with' },
  { name: 'expose', path: ['expose'], kind: 'text', help: 'who sees x-warmroute-* headers: loopback, keys or all' },
]

export function environmentName(flag: Flag): string {
  return `WARMROUTE_${flag.name.toUpperCase().replaceAll('-', '_')}`
}
