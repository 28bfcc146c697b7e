import type { SaturationLimits } from '../admission/saturation.ts'
import type { Config } from '../config/schema.ts'
import type { ForwardLimits } from '../proxy/outcome.ts'

/** The config's options as the rooms take them, at the start and at each reload. */
export function forwardLimits({ timeouts, limits }: Config): ForwardLimits {
  return {
    ...timeouts,
    heldEventBytes: limits.heldEventBytes,
    heldAnswerBytes: limits.heldAnswerBytes,
    answerHeaderBytes: limits.answerHeaderBytes,
    connectionsPerWorker: limits.connectionsPerWorker,
  }
}

export function saturationLimits({ admission, load }: Config): SaturationLimits {
  const { requestsPerWorker = null, ...saturation } = admission.saturation
  return { ...saturation, requestsPerWorker, staleMs: load.staleMs }
}
