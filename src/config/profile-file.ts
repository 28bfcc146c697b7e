import type { ProfileConfig } from './schema.ts'
import { readYaml } from './yaml.ts'

/**
 * A profile that is given by another file, with its absolute path and what it holds now: a reload then sees a changed file.
 * Others stay as they are. Throws RouterError CONFIG_UNREADABLE or CONFIG_INVALID.
 */
export function withProfileFile(profile: ProfileConfig, absolute: (path: string) => string): ProfileConfig {
  if (typeof profile === 'string' || !('from' in profile)) return profile
  const from = absolute(profile.from)
  return { from, document: readYaml(from, 'EndpointPickerConfig') }
}
