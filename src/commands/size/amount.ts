import { RouterError } from '../../errors.ts'

const units: ReadonlyMap<string, number> = new Map([
  ['', 1],
  ['b', 1],
  ['kib', 2 ** 10],
  ['mib', 2 ** 20],
  ['gib', 2 ** 30],
  ['tib', 2 ** 40],
  ['kb', 1e3],
  ['mb', 1e6],
  ['gb', 1e9],
  ['tb', 1e12],
])

/** "80GiB", "688.6GB", "1.5TiB" or bytes. Throws CONFIG_INVALID for anything else. */
export function parseBytes(text: string, flag: string): number {
  const [, digits = '', unit = ''] = /^([\d.]+)\s*([a-z]*)$/i.exec(text.trim()) ?? []
  const bytes = Number(digits) * (units.get(unit.toLowerCase()) ?? NaN)
  if (digits !== '' && bytes > 0 && Number.isFinite(bytes)) return bytes
  throw new RouterError('CONFIG_INVALID', `--${flag} takes a size such as 80GiB or 688.6GB, not "${text}"`)
}

/** "64", "128k" (1,000) or "128Ki" (1,024). */
export function parseCount(text: string, flag: string): number {
  const [, digits = '', unit = ''] = /^(\d+)(k|ki)?$/i.exec(text.trim()) ?? []
  const count = Number(digits) * (unit === '' ? 1 : unit.toLowerCase() === 'k' ? 1000 : 1024)
  if (digits !== '' && count > 0 && Number.isSafeInteger(count)) return count
  throw new RouterError('CONFIG_INVALID', `--${flag} takes a whole number above zero, not "${text}"`)
}

/** A number above zero, and no more than `most`. */
export function parseNumber(text: string, flag: string, most = Infinity): number {
  const value = Number(text)
  if (text.trim() !== '' && value > 0 && value <= most && Number.isFinite(value)) return value
  const range = most === Infinity ? 'a number above zero' : `a number above zero, ${most} at most`
  throw new RouterError('CONFIG_INVALID', `--${flag} takes ${range}, not "${text}"`)
}

const sizes: readonly (readonly [bytes: number, unit: string])[] = [
  [2 ** 40, 'TiB'],
  [2 ** 30, 'GiB'],
  [2 ** 20, 'MiB'],
  [2 ** 10, 'KiB'],
]

export function bytesText(bytes: number): string {
  const [unitBytes, unit] = sizes.find(([least]) => bytes >= least) ?? [1, 'B']
  const value = bytes / unitBytes
  return `${value.toLocaleString('en-US', { maximumFractionDigits: value < 100 ? 2 : 1 })} ${unit}`
}

export function rateText(bytesPerSecond: number): string {
  return `${(bytesPerSecond / 1e9).toLocaleString('en-US', { maximumSignificantDigits: 3 })} GB/s`
}

export function countText(count: number): string {
  return count.toLocaleString('en-US', { maximumFractionDigits: 0 })
}

export function shareText(share: number): string {
  return `${(share * 100).toFixed(1)} %`
}
