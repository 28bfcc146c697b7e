/** Why Redis cannot be used, or refused a command. */
export type RedisReason =
  | 'unreachable'
  | 'timeout'
  | 'tls'
  | 'auth'
  | 'permission'
  | 'max_clients'
  | 'loading'
  | 'readonly'
  | 'oom'
  | 'misconf'
  | 'busy'
  | 'moved'
  | 'cluster_down'
  | 'no_master'
  /** Our own limit of commands under way. */
  | 'full'
  | 'error'

/** A fault of Redis or of the way to it. Its message never holds what was sent: no key, no password. */
export class RedisFault extends Error {
  readonly reason: RedisReason

  constructor(reason: RedisReason, message: string) {
    super(message)
    this.name = 'RedisFault'
    this.reason = reason
  }
}

/** What begins an error reply, or stands in it, and what it means. */
const replies: readonly (readonly [RegExp, RedisReason])[] = [
  [/^LOADING\b/, 'loading'],
  [/^READONLY\b/, 'readonly'],
  [/^OOM\b/, 'oom'],
  [/^(MISCONF|NOREPLICAS)\b/, 'misconf'],
  [/^BUSY\b/, 'busy'],
  [/^(MOVED|ASK|TRYAGAIN|UNBLOCKED)\b/, 'moved'],
  [/^(CLUSTERDOWN|MASTERDOWN)\b|cluster support disabled/i, 'cluster_down'],
  [/^(NOAUTH|WRONGPASS)\b|invalid password|without any password configured/i, 'auth'],
  [/^(NOPERM|DENIED)\b/, 'permission'],
  [/max number of clients/i, 'max_clients'],
]

const unreachable = /^(ECONN|EHOST|ENET|ENOTFOUND|EAI_|EPIPE|EADDR)/
const timedOut = /^(ETIMEDOUT|ESOCKETTIMEDOUT)/
const encryption = /^(ERR_TLS|ERR_SSL|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|EPROTO)/
const maxMessageChars = 160

/** Any error of the connection or of Redis as a fault. */
export function faultOf(error: unknown): RedisFault {
  if (error instanceof RedisFault) return error
  const text = error instanceof Error ? error.message : String(error)
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  const message = withoutArguments(text)
  for (const [form, reason] of replies) if (form.test(text)) return new RedisFault(reason, message)
  if (timedOut.test(code)) return new RedisFault('timeout', message)
  if (encryption.test(code)) return new RedisFault('tls', message)
  if (unreachable.test(code) || /^(Connection is closed|Stream isn't writeable)/.test(text)) {
    return new RedisFault('unreachable', message)
  }
  return new RedisFault('error', message)
}

/** Some servers repeat what they did not understand. */
function withoutArguments(text: string): string {
  const [line = ''] = text.replace(/^.*Last (?:error|reply): /, '').split('\n')
  return line.replace(/,? with args beginning with.*$/i, '').slice(0, maxMessageChars)
}
