import { definePolicy } from 'warmroute'

/**
 * Workers with a label `tenants: acme, globex` serve the API keys of these tenants only, and others everybody. Required: a
 * tenant whose workers are all gone gets an error, and never a place beside somebody else's data.
 */
export default definePolicy({
  kind: 'filter',
  type: 'tenant-isolation',
  description: 'Keeps API keys to the workers of their tenant.',
  parameters: {
    type: 'object',
    properties: {
      label: { type: 'string', default: 'tenants', description: 'Label with the API key ids, separated by commas.' },
    },
    additionalProperties: false,
  },
  create({ label }) {
    /** Parsed once for each text that a label ever had. */
    const parsed = new Map()
    const tenantsOf = (text) => {
      if (!parsed.has(text)) parsed.set(text, new Set(text.split(',').map((name) => name.trim())))
      return parsed.get(text)
    }
    return {
      required: true,
      filter(request, fleet, match, keep) {
        let hasOwn = false
        for (let i = 0; i < fleet.count; i++) {
          const text = fleet.labels[i][label]
          const isOthers = text !== undefined && !tenantsOf(text).has(request.keyId)
          if (isOthers) keep[i] = 0
          else if (text !== undefined) hasOwn = true
        }
        // A tenant with workers of its own uses these alone.
        for (let i = 0; hasOwn && i < fleet.count; i++) if (fleet.labels[i][label] === undefined) keep[i] = 0
      },
    }
  },
})
