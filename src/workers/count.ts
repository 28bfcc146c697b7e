/** The most that one request counts in any figure: thousands of them at once still fit into 32 bits together. */
export const mostPerRequest = 2 ** 20 - 1

/** A figure from outside as a count: whole, and never negative, endless or NaN. */
export function count(figure: number, most = mostPerRequest): number {
  return figure > 0 ? Math.min(Math.round(figure), most) : 0
}
