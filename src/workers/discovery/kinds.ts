import type { Discovery, Findings } from './discovery.ts'
import { DnsDiscovery, type DnsOptions, type FoundAddress } from './dns.ts'
import { fileDiscovery, type FileOptions } from './file.ts'

/** One of them is given: the config sees to it. */
export interface DiscoveryOptions {
  readonly dns?: DnsOptions | undefined
  readonly file?: FileOptions | undefined
}

/** Every kind of discovery. A new one adds a file and a case here. */
export function createDiscovery<Given extends FoundAddress>(
  options: DiscoveryOptions,
  parse: (text: string, path: string) => readonly Given[],
  findings: Findings<Given | FoundAddress>,
): Discovery {
  if (options.dns !== undefined) return new DnsDiscovery(options.dns, findings)
  if (options.file !== undefined) return fileDiscovery(options.file, parse, findings)
  throw new RangeError('no kind of discovery is given')
}
