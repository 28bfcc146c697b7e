import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/** Keeps the workers whose engine says that it has the request's LoRA adapter loaded, where any does. */
export const adapterLoaded = definePolicy({
  kind: 'filter',
  type: 'adapter-loaded',
  reason: 'adapter_missing',
  description: 'Keeps workers that have the request’s LoRA adapter loaded.',
  parameters: Type.Object({}, { additionalProperties: false }),
  create() {
    return {
      filter(request, fleet, _match, keep) {
        if (request.adapter === null) return
        for (let i = 0; i < fleet.count; i++) if (fleet.hasAdapter[i] === 0) keep[i] = 0
      },
    }
  },
})
