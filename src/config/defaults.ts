/*
 * Defaults of the schema that a router in virtual time has, too: what is found out there holds for a router whose config says
 * nothing else.
 */

/** From when on a worker's events are left alone. */
export const eventLosses = { gaps: 2, withinSeconds: 600 } as const

/** Age beyond which a load figure is not used. */
export const staleLoadMs = 3000

/** How long a silent replica counts as there. */
export const shareTtlMs = 2000
