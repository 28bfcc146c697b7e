/** Sum of a metric's samples, in Prometheus text, whose labels contain all of `labels`; 0 where there are none. */
export function metricSum(text: string, name: string, labels: Readonly<Record<string, string>> = {}): number {
  return text
    .split('\n')
    .filter((line) => line.startsWith(`warmroute_${name}{`) || line.startsWith(`warmroute_${name} `))
    .filter((line) => Object.entries(labels).every(([label, value]) => line.includes(`${label}="${value}"`)))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0)
}
