import { isIP, isIPv4, isIPv6 } from 'node:net'
import { dirname, resolve } from 'node:path'
import type Type from 'typebox'
import { Value } from 'typebox/value'
import { RouterError } from '../errors.ts'
import { eventFaults, workerEventFaults } from './event-faults.ts'
import { environmentName, flags } from './flags.ts'
import { faultsOf } from '../faults.ts'
import { withProfileFile } from './profile-file.ts'
import { redisFaults } from './redis-faults.ts'
import {
  addedWorkerSchema,
  configSchema,
  workerChangeSchema,
  workerListSchema,
  type AddedWorker,
  type Config,
  type DiscoveryConfig,
  type WorkerChange,
  type WorkerConfig,
} from './schema.ts'
import { parseYaml, readYaml } from './yaml.ts'

export interface ConfigSources {
  /** YAML file, if one was named. */
  readonly file?: string | undefined
  /** Values of flags as given on the command line, by flag name. */
  readonly flags?: Readonly<Record<string, string | readonly string[] | undefined>>
  readonly environment?: Readonly<Record<string, string | undefined>>
}

/**
 * The effective config: flag over environment over file over default.
 * Throws RouterError CONFIG_UNREADABLE or CONFIG_INVALID; the latter's message has one line for each fault, with its
 * place and the remedy.
 */
export function loadConfig(sources: ConfigSources): Config {
  const given = sources.file === undefined ? {} : readConfigFile(sources.file)
  for (const flag of flags) {
    const value = sources.flags?.[flag.name] ?? sources.environment?.[environmentName(flag)]
    if (value !== undefined && value !== '') place(given, flag.path, parsed(flag, value))
  }
  return checkConfig(given, sources.file)
}

/** Fills in the defaults and checks a plain value; the same errors as `loadConfig`. */
export function checkConfig(given: unknown, file?: string): Config {
  const filled = Value.Default(configSchema, given)
  const faults = faultsOf(configSchema, filled)
  if (faults.length === 0) faults.push(...crossFaults(filled as Config))
  if (faults.length > 0) {
    const where = file === undefined ? '' : `${file}: `
    throw new RouterError('CONFIG_INVALID', faults.map((fault) => `${where}${fault}`).join('\n'))
  }
  return withAbsolutePaths(filled as Config, file)
}

/** A worker as the admin port takes it, checked as those of the file are. Throws RouterError BODY_INVALID. */
export function checkAddedWorker(given: unknown): AddedWorker {
  const worker = checkBody(addedWorkerSchema, given) as AddedWorker
  const [fault] = urlFaults(worker.url, 'url')
  if (fault !== undefined) throw new RouterError('BODY_INVALID', fault, { param: 'url' })
  const [eventFault] = workerEventFaults(worker, '')
  if (eventFault !== undefined) throw new RouterError('BODY_INVALID', eventFault, { param: 'events' })
  return worker
}

/** What the admin port may change of a worker. Throws RouterError BODY_INVALID. */
export function checkWorkerChange(given: unknown): WorkerChange {
  return checkBody(workerChangeSchema, given) as WorkerChange
}

/** The list of workers in a discovery's file; paths in it are relative to it. Throws RouterError CONFIG_INVALID. */
export function parseWorkerList(source: string, file: string): WorkerConfig[] {
  const given: unknown = parseYaml(source, file)
  const faults = faultsOf(workerListSchema, given)
  const workers = faults.length > 0 ? [] : (given as (string | WorkerConfig)[])
  const list = workers.map((worker) =>
    typeof worker === 'string' ? { url: worker } : withAbsoluteTls(worker, (path) => resolve(dirname(file), path)),
  )
  faults.push(...list.flatMap(({ url }, index) => urlFaults(url, `[${index}].url`)))
  faults.push(...list.flatMap((worker, index) => workerEventFaults(worker, `[${index}].`)))
  if (faults.length > 0) throw new RouterError('CONFIG_INVALID', faults.map((fault) => `${file}: ${fault}`).join('\n'))
  return list
}

function checkBody(schema: Type.TSchema, given: unknown): unknown {
  const filled = Value.Default(schema, given)
  const faults = faultsOf(schema, filled)
  if (faults.length > 0) throw new RouterError('BODY_INVALID', faults.join('\n'))
  return filled
}

/** The mapping that a YAML file holds. Throws RouterError CONFIG_UNREADABLE, CONFIG_INVALID. */
export function readConfigFile(file: string): Record<string, unknown> {
  const value = readYaml(file, 'config file')
  if (value === null || value === undefined) return {}
  if (typeof value !== 'object' || Array.isArray(value)) {
    throw new RouterError(
      'CONFIG_INVALID',
      `${file}: the file must hold a mapping of options, e.g. "listen: { port: 8080 }"`,
    )
  }
  return value as Record<string, unknown>
}

function parsed(flag: (typeof flags)[number], value: string | readonly string[]): unknown {
  const words = typeof value === 'string' ? [value] : value
  switch (flag.kind) {
    case 'list':
      return words.flatMap((word) => word.split(/[\s,]+/)).filter((word) => word !== '')
    case 'integer': {
      const number = Number(words.at(-1))
      if (!Number.isFinite(number)) {
        throw new RouterError(
          'CONFIG_INVALID',
          `--${flag.name} (${environmentName(flag)}) takes a number, not "${words.at(-1) ?? ''}"`,
        )
      }
      return Math.round(number * (flag.factor ?? 1))
    }
    case 'text':
      return words.at(-1)
    default:
      return flag.kind satisfies never
  }
}

function place(target: Record<string, unknown>, path: readonly string[], value: unknown): void {
  let at = target
  for (const name of path.slice(0, -1)) {
    const next = at[name]
    if (typeof next === 'object' && next !== null) at = next as Record<string, unknown>
    else at = at[name] = {}
  }
  at[path.at(-1) ?? ''] = value
}

const keyHashForm = /^sha256:[0-9a-f]{64}$/

/** What no schema can say: conditions between options. */
function crossFaults(config: Config): string[] {
  const faults: string[] = []
  const names = new Map<string, number>()
  const engines = new Map<string, string>()
  const once = (url: string, place: string): string[] => {
    if (!URL.canParse(url)) return []
    const name = new URL(url).href.replace(/\/+$/, '')
    const before = engines.get(name)
    engines.set(name, place)
    return before === undefined ? [] : [`${place}: the same engine as ${before}; name each engine once`]
  }
  for (const [index, pool] of config.pools.entries()) {
    for (const name of [pool.model, ...(pool.aliases ?? []), ...(pool.adapters ?? [])]) {
      const before = names.get(name)
      if (before !== undefined)
        faults.push(
          `pools[${index}]: "${name}" already names pools[${before}]; every model name, alias and adapter must be unique`,
        )
      names.set(name, index)
    }
    if (pool.discovery !== undefined) faults.push(...discoveryFaults(pool.discovery, `pools[${index}].discovery`))
    for (const [number, worker] of pool.workers.entries()) {
      const place = `pools[${index}].workers[${number}].url`
      faults.push(...urlFaults(worker.url, place), ...once(worker.url, place))
    }
  }
  for (const [index, url] of (config.workerUrls ?? []).entries()) {
    faults.push(...urlFaults(url, `workerUrls[${index}]`), ...once(url, `workerUrls[${index}]`))
  }
  faults.push(...apiKeyFaults(config), ...doorFaults(config))
  if (config.redis !== undefined) faults.push(...redisFaults(config.redis))
  faults.push(...eventFaults(config))
  if (config.pools.length === 0 && (config.workerUrls ?? []).length === 0) {
    faults.push('no workers: give --worker-urls http://HOST:PORT … or a config file with pools')
  }
  return faults
}

/** What the two ports and the connections to engines need beside their schema. */
function doorFaults({ admin, forwarded, pools }: Config): string[] {
  const faults: string[] = []
  if (admin.keyHash !== undefined && !keyHashForm.test(admin.keyHash)) {
    faults.push('admin.keyHash: not the hash of a key; "warmroute hash-key" makes one, as sha256:…')
  }
  if (admin.keyHash === undefined && admin.tls?.clientCa === undefined && !isLoopback(admin.host)) {
    faults.push(
      `admin.host: ${admin.host} is open to other machines, which could drain workers and read decisions; ` +
        'give admin.keyHash ("warmroute hash-key" makes one) or admin.tls.clientCa, or listen on 127.0.0.1',
    )
  }
  for (const [index, range] of forwarded.trustedProxies.entries()) {
    if (!isAddressRange(range))
      faults.push(`forwarded.trustedProxies[${index}]: "${range}" is no address and no range such as 10.0.0.0/8`)
  }
  for (const [index, pool] of pools.entries()) {
    const given = [pool, ...pool.workers, pool.discovery?.worker].map((options) => options?.tls)
    const halves = given.some((tls) => tls !== undefined && (tls.cert === undefined) !== (tls.key === undefined))
    if (halves) faults.push(`pools[${index}]: tls.cert and tls.key go together`)
  }
  return faults
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'))
}

function isAddressRange(text: string): boolean {
  const [address = '', bits, ...rest] = text.split('/')
  const most = isIPv4(address) ? 32 : isIPv6(address) ? 128 : -1
  if (bits === undefined) return most >= 0
  return rest.length === 0 && /^\d{1,3}$/.test(bits) && Number(bits) <= most
}

/** Messages never repeat a hash: a key may stand there by mistake. */
function apiKeyFaults({ apiKeys }: Config): string[] {
  const faults: string[] = []
  const ids = new Map<string, number>()
  const hashes = new Map<string, number>()
  for (const [index, { id, hash }] of apiKeys.entries()) {
    const place = `apiKeys[${index}]`
    if (!keyHashForm.test(hash)) {
      faults.push(`${place}.hash: not the hash of a key; "warmroute hash-key" makes one, as sha256:…`)
    }
    const sameId = ids.get(id)
    if (sameId !== undefined) faults.push(`${place}.id: "${id}" already names apiKeys[${sameId}]`)
    const sameHash = hashes.get(hash)
    if (sameHash !== undefined) faults.push(`${place}.hash: the same key as apiKeys[${sameHash}]`)
    ids.set(id, index)
    hashes.set(hash, index)
  }
  return faults
}

function discoveryFaults({ dns, file }: DiscoveryConfig, place: string): string[] {
  if ((dns === undefined) === (file === undefined)) return [`${place}: give one of "dns" and "file"`]
  if (dns === undefined) return []
  const faults = (dns.servers ?? []).filter((server) => !isServer(server))
  return [
    ...faults.map(
      (server) => `${place}.dns.servers: "${server}" is not an IP address, or IP:PORT ([IP]:PORT for IPv6)`,
    ),
    ...(dns.type !== 'SRV' && dns.port === undefined
      ? [`${place}.dns: "port" is missing; only SRV records bring one`]
      : []),
  ]
}

function isServer(text: string): boolean {
  const bare = /^\[(.*)\](?::\d{1,5})?$/.exec(text)?.[1] ?? text.replace(/^([^:]*):\d{1,5}$/, '$1')
  return isIP(bare) !== 0
}

function urlFaults(url: string, place: string): string[] {
  if (!URL.canParse(url)) return [`${place}: "${url}" is not a URL; write it as http://HOST:PORT`]
  const { protocol } = new URL(url)
  return protocol === 'http:' || protocol === 'https:' ? [] : [`${place}: "${url}" is neither http nor https`]
}

/** Paths in a config file are relative to that file; those on the command line to the working directory. */
function withAbsolutePaths(config: Config, file: string | undefined): Config {
  const base = file === undefined ? process.cwd() : dirname(resolve(file))
  const absolute = (path: string): string => resolve(base, path)
  return {
    ...config,
    listen: withAbsoluteTls(config.listen, absolute),
    admin: withAbsoluteTls(config.admin, absolute),
    ...(config.redis === undefined ? {} : { redis: withAbsoluteTls(config.redis, absolute) }),
    ...(config.profile === undefined ? {} : { profile: withProfileFile(config.profile, absolute) }),
    ...(config.modelPath === undefined ? {} : { modelPath: resolve(config.modelPath) }),
    decisions: {
      ...config.decisions,
      ...(config.decisions.log === undefined ? {} : { log: absolute(config.decisions.log) }),
    },
    pools: config.pools.map((pool) => ({
      ...withAbsoluteTls(pool, absolute),
      workers: pool.workers.map((worker) => withAbsoluteTls(worker, absolute)),
      ...(pool.profile === undefined ? {} : { profile: withProfileFile(pool.profile, absolute) }),
      ...(pool.tokenizer === undefined ? {} : { tokenizer: absolute(pool.tokenizer) }),
      ...(pool.chatTemplate === undefined ? {} : { chatTemplate: absolute(pool.chatTemplate) }),
      ...(pool.discovery === undefined ? {} : { discovery: withAbsoluteFiles(pool.discovery, absolute) }),
    })),
    plugins: config.plugins.map((plugin) => (plugin.startsWith('.') ? absolute(plugin) : plugin)),
  }
}

function withAbsoluteFiles(
  { file, worker, ...rest }: DiscoveryConfig,
  absolute: (path: string) => string,
): DiscoveryConfig {
  return {
    ...rest,
    ...(file === undefined ? {} : { file: { ...file, path: absolute(file.path) } }),
    ...(worker === undefined ? {} : { worker: withAbsoluteTls(worker, absolute) }),
  }
}

type TlsPaths = Partial<Record<'ca' | 'cert' | 'key' | 'clientCa', string>>

function withAbsoluteTls<Given extends { readonly tls?: TlsPaths }>(
  given: Given,
  absolute: (path: string) => string,
): Given {
  if (given.tls === undefined) return given
  const tls: TlsPaths = { ...given.tls }
  for (const name of ['ca', 'cert', 'key', 'clientCa'] as const) {
    const path = tls[name]
    if (path !== undefined) tls[name] = absolute(path)
  }
  return { ...given, tls }
}
