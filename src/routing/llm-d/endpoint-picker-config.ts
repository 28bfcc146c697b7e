import Type from 'typebox'
import { Value } from 'typebox/value'
import { RouterError } from '../../errors.ts'
import { faultsOf, hint } from '../../faults.ts'
import { filledParameters, parameterFaults } from '../parameters.ts'
import type { PolicyPlugin } from '../policy.ts'
import { absentTypes, deprecatedTypes, handledTypes, needlessParameters, sameTypes } from './plugin-types.ts'
import { llmDPlugins } from './plugins.ts'

interface Chosen {
  readonly type: string
  readonly weight?: number
  readonly parameters: Readonly<Record<string, unknown>>
}

export interface TranslatedProfile {
  readonly profile: {
    readonly name: string
    readonly filters: readonly Chosen[]
    readonly scorers: readonly Chosen[]
    readonly picker: Chosen
  }
  /** What the router does itself, what is deprecated, what was left out. */
  readonly notes: readonly string[]
}

const apiVersions = ['llm-d.ai/v1alpha1', 'inference.networking.x-k8s.io/v1alpha1'] as const
const strict = { additionalProperties: false }
const section = Type.Optional(Type.Unknown())
/** Sections whose work the router does itself. */
const sections = ['featureGates', 'dataLayer', 'flowControl', 'requestHandler', 'saturationDetector', 'parser'] as const

const schema = Type.Object(
  {
    apiVersion: Type.Union([Type.Literal(apiVersions[0]), Type.Literal(apiVersions[1])]),
    kind: Type.Literal('EndpointPickerConfig'),
    plugins: Type.Optional(
      Type.Array(
        Type.Object(
          {
            name: Type.Optional(Type.String({ minLength: 1 })),
            type: Type.String({ minLength: 1 }),
            parameters: Type.Optional(Type.Union([Type.Record(Type.String(), Type.Unknown()), Type.Null()])),
          },
          strict,
        ),
      ),
    ),
    schedulingProfiles: Type.Optional(
      Type.Array(
        Type.Object(
          {
            name: Type.String({ minLength: 1 }),
            plugins: Type.Optional(
              Type.Array(
                Type.Object({ pluginRef: Type.String({ minLength: 1 }), weight: Type.Optional(Type.Number()) }, strict),
              ),
            ),
          },
          strict,
        ),
      ),
    ),
    featureGates: section,
    dataLayer: section,
    flowControl: section,
    requestHandler: section,
    saturationDetector: section,
    parser: section,
  },
  strict,
)
type EndpointPickerConfig = Type.Static<typeof schema>

/** All of llm-d's types that can be told from a slip of the pen. */
const knownTypes = [
  ...new Set([
    ...llmDPlugins.map(({ type }) => type),
    ...Object.keys({ ...sameTypes, ...handledTypes, ...absentTypes }),
  ]),
]

/** A plugin of the file that can be a part of a profile. */
interface Part {
  readonly place: string
  readonly type: string
  readonly kinds: readonly PolicyPlugin['kind'][]
  readonly parameters: Readonly<Record<string, unknown>>
}

/**
 * llm-d's EndpointPickerConfig as a profile of the same filters, scorers and picker. Its defaults hold: a weight is 1, the
 * picker max-score-picker, and without schedulingProfiles all plugins are used.
 * @param file for messages
 * @throws RouterError CONFIG_INVALID with one line for each fault, with its place
 */
export function translateEndpointPickerConfig(document: unknown, file: string): TranslatedProfile {
  const translation = new Translation()
  const translated = isEndpointPickerConfig(document, translation.faults) ? translation.translate(document) : null
  if (translated !== null && translation.faults.length === 0) return translated
  throw new RouterError('CONFIG_INVALID', translation.faults.map((fault) => `${file}: ${fault}`).join('\n'))
}

function isEndpointPickerConfig(document: unknown, faults: string[]): document is EndpointPickerConfig {
  faults.push(...faultsOf(schema, document))
  return Value.Check(schema, document)
}

class Translation {
  readonly faults: string[] = []
  readonly #notes: string[] = []
  /** By name; null for those that are no part of a profile. */
  readonly #parts = new Map<string, Part | null>()

  translate(config: EndpointPickerConfig): TranslatedProfile {
    const { apiVersion, plugins = [], schedulingProfiles = [] } = config
    if (apiVersion !== apiVersions[0]) this.#note('apiVersion', `deprecated; it is ${apiVersions[0]} now`)
    for (const [index, plugin] of plugins.entries()) {
      const place = `plugins[${index}]`
      const name = plugin.name ?? plugin.type
      if (this.#parts.has(name)) this.faults.push(`${place}: the name "${name}" is given twice`)
      this.#parts.set(name, this.#partOf(place, plugin.type, plugin.parameters ?? {}))
    }
    for (const name of sections) if (config[name] !== undefined) this.#note(name, 'handled by the router itself')
    if (schedulingProfiles.length > 1) {
      const names = schedulingProfiles.map(({ name }) => name).join(', ')
      this.faults.push(`schedulingProfiles: one profile a pool is what there is, not ${names}`)
    }
    const [profile] = schedulingProfiles
    const used = profile === undefined ? [...this.#parts.keys()].map((pluginRef) => ({ pluginRef })) : profile.plugins
    return { profile: this.#profileOf(used ?? []), notes: this.#notes }
  }

  #note(place: string, text: string): void {
    this.#notes.push(`${place}: ${text}`)
  }

  #partOf(place: string, given: string, parameters: Readonly<Record<string, unknown>>): Part | null {
    const instead = deprecatedTypes[given]
    if (instead !== undefined) this.#note(place, `"${given}" is deprecated; llm-d has ${instead} now`)
    const handled = handledTypes[given]
    if (handled !== undefined) {
      this.#note(place, `"${given}" is handled by the router itself: ${handled}`)
      return null
    }
    const type = sameTypes[given] ?? given
    const found = llmDPlugins.filter((plugin) => plugin.type === type)
    if (found.length === 0) {
      const why = absentTypes[given]
      this.faults.push(
        why === undefined
          ? `${place}: unknown plugin type "${given}"${hint(given, knownTypes, '')}`
          : `${place}: the plugin type "${given}" has no counterpart: ${why}`,
      )
      return null
    }
    const kept = type === given ? this.#parametersOf(place, type, parameters) : {}
    const kinds = found.map(({ kind }) => kind).filter((kind) => kind !== 'filter' || !isScorerOnly(type, parameters))
    // One that is a filter and a scorer takes the same as both.
    const faults = found.slice(0, 1).flatMap((plugin) => parameterFaults(plugin, filledParameters(plugin, kept)))
    this.faults.push(...faults.map((fault) => `${place} ("${given}"): ${fault}`))
    return { place, type, kinds, parameters: kept }
  }

  /** Those that mean something here. */
  #parametersOf(
    place: string,
    type: string,
    given: Readonly<Record<string, unknown>>,
  ): Readonly<Record<string, unknown>> {
    const kept = Object.entries(given).filter(([name]) => !needlessParameters.has(name))
    const parameters = Object.fromEntries(kept)
    if (type === 'context-length-aware') delete parameters['enableFiltering']
    if (type.startsWith('session-affinity-')) return this.#sessionParameters(place, parameters)
    return parameters
  }

  /** Of its two strategies the one that binds sessions by an id; the other one needs a header in answers. */
  #sessionParameters(
    place: string,
    { strategy, ...rest }: Readonly<Record<string, unknown>>,
  ): Readonly<Record<string, unknown>> {
    if (strategy === 'session_id')
      return Object.fromEntries(Object.entries(rest).filter(([name]) => name !== 'encodedEndpointHeaderConfig'))
    this.#note(place, 'answers carry no x-session-token here; sessions are told by the header x-session-id instead')
    return {}
  }

  #profileOf(used: readonly { readonly pluginRef: string; readonly weight?: number }[]): TranslatedProfile['profile'] {
    const filters: Chosen[] = []
    const scorers: Chosen[] = []
    const pickers: Chosen[] = []
    for (const { pluginRef, weight = 1 } of used) {
      const part = this.#parts.get(pluginRef)
      if (part === undefined) this.faults.push(`schedulingProfiles[0]: "${pluginRef}" is not among the plugins`)
      if (part === undefined || part === null) continue
      const { type, kinds, parameters } = part
      if (kinds.includes('filter')) filters.push({ type, parameters })
      if (kinds.includes('scorer')) scorers.push({ type, weight, parameters })
      if (kinds.includes('picker')) pickers.push({ type, parameters })
    }
    if (pickers.length > 1) {
      this.faults.push(`schedulingProfiles[0]: one picker, not ${pickers.map(({ type }) => type).join(', ')}`)
    }
    const declared = [...this.#parts.values()].find((part) => part?.kinds.includes('picker') === true)
    const picker = pickers[0] ?? declared ?? { type: 'max-score-picker', parameters: {} }
    return { name: 'llm-d', filters, scorers, picker: { type: picker.type, parameters: picker.parameters } }
  }
}

/** A plugin that is both filters only where it is told to. */
function isScorerOnly(type: string, parameters: Readonly<Record<string, unknown>>): boolean {
  return type === 'context-length-aware' && parameters['enableFiltering'] !== true
}
