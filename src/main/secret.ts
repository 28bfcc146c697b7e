import { createHash, randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import type { Config } from '../config/schema.ts'
import { RouterError } from '../errors.ts'

export interface DeploymentSecret {
  readonly bytes: Uint8Array
  /** `shared`: made of what all replicas know anyway. */
  readonly origin: 'config' | 'random' | 'shared' | 'file'
}

/**
 * The secret in every block key (decision 1): from the config where it is there. Without it replicas must still agree, and
 * a process must know its own keys again after a restart: then it is made of what they know of their Redis, or kept in a
 * file beside the snapshot. Throws RouterError CONFIG_UNREADABLE.
 */
export function deploymentSecret(
  config: Pick<Config, 'keys' | 'redis'>,
  snapshotFile: string | null,
): DeploymentSecret {
  const { keys, redis } = config
  if (keys.secret !== undefined) return { bytes: Buffer.from(keys.secret), origin: 'config' }
  if (redis !== undefined) {
    const password = redis.password ?? passwordIn(redis.url)
    const hash = createHash('sha256').update(JSON.stringify(['block keys', redis.prefix, password]))
    return { bytes: hash.digest(), origin: 'shared' }
  }
  if (snapshotFile === null) return { bytes: randomBytes(32), origin: 'random' }
  return { bytes: kept(`${snapshotFile}.secret`), origin: 'file' }
}

/** Tells replicas with another secret apart without giving it away: their keys mean nothing to each other. */
export function fingerprintOf(secret: Uint8Array): string {
  return createHash('sha256').update('fingerprint').update(secret).digest('hex').slice(0, 8)
}

function passwordIn(url: string | undefined): string {
  return url !== undefined && URL.canParse(url) ? decodeURIComponent(new URL(url).password) : ''
}

function kept(path: string): Uint8Array {
  try {
    writeFileSync(path, randomBytes(32), { mode: 0o600, flag: 'wx' })
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST'))
      throw new RouterError('CONFIG_UNREADABLE', `cannot keep the secret of the snapshot in ${path}: ${String(error)}`)
  }
  return readFileSync(path)
}
