/**
 * Rendezvous hashing: the owner that all replicas name alike without asking each other, and that changes only for names of
 * a replica that comes or goes. Null: there is none to choose from.
 */
export function preferredOwner(name: string, replicas: Iterable<string>): string | null {
  let best: string | null = null
  let bestWeight = -1
  for (const replica of replicas) {
    const weight = weightOf(`${replica} ${name}`)
    if (weight > bestWeight || (weight === bestWeight && replica < (best ?? ''))) {
      best = replica
      bestWeight = weight
    }
  }
  return best
}

/** FNV-1a over UTF-16 units, mixed so that names which differ in their end alone are far apart (MurmurHash3's finalizer). */
function weightOf(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
