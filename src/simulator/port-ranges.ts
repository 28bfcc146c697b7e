import { RouterError } from '../errors.ts'
import type { Ports } from './ports.ts'

/** Below the ports that systems give to outgoing connections. */
const lowestPort = 12_000
const highestPort = 31_000
const maxTries = 20

/**
 * Opens what needs ports in a row, one a rank, for each purpose, because peers are told of the first one only. Where the
 * system is to choose, rows are tried until all of their ports are free; the choice is kept in `ports`.
 */
export async function openInRows<Opened>(
  ports: Ports,
  options: { readonly purposes: readonly string[]; readonly ranks: number; readonly random: () => number },
  open: () => Promise<Opened>,
): Promise<Opened> {
  const { ranks, random } = options
  const free = ranks === 1 ? [] : options.purposes.filter((purpose) => ports.of(purpose) === 0)
  for (let left = maxTries; ; left--) {
    for (const purpose of free) {
      const first = lowestPort + Math.floor(random() * (highestPort - lowestPort - ranks))
      for (let rank = 0; rank < ranks; rank++) ports.keep(purpose, rank, first + rank)
    }
    try {
      return await open()
    } catch (fault) {
      const taken = fault instanceof RouterError && fault.code === 'PORT_IN_USE'
      if (!taken || free.length === 0 || left === 1) throw fault
      for (const purpose of free) ports.forget(purpose)
    }
  }
}
