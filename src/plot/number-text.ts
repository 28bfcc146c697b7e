const steps: readonly (readonly [least: number, suffix: string])[] = [
  [1e12, 'T'],
  [1e9, 'G'],
  [1e6, 'M'],
  [1e4, 'k'],
]

/** A number as axes show it: four digits at most, with k, M, G or T from ten thousand on. */
export function shortNumber(value: number): string {
  const [least, suffix] = steps.find(([bound]) => Math.abs(value) >= bound * 0.99995) ?? [1, '']
  const unit = suffix === 'k' ? 1000 : least
  return `${String(Number((value / unit).toPrecision(4)))}${suffix}`
}
