import { RouterError } from '../errors.ts'

/** A parsed `tcp://host:port`; the host `*` (any interface) is an empty string. */
export interface Endpoint {
  readonly host: string
  readonly port: number
}

/**
 * Reads `tcp://host:port`, with `*` for any interface and IPv6 addresses in brackets. Other transports (ipc, inproc) do
 * not cross machines and are refused with CONFIG_INVALID.
 */
export function parseEndpoint(text: string): Endpoint {
  const parts = /^tcp:\/\/(?:\[([0-9a-fA-F:.%\w]+)\]|([^[\]/:\s]+)):(\d{1,5})$/.exec(text)
  const port = Number(parts?.[3])
  if (parts === null || port > 65535) {
    throw new RouterError(
      'CONFIG_INVALID',
      `"${text.slice(0, 200)}" is no endpoint. Write tcp://host:port, for example tcp://10.0.0.7:5557, tcp://[fd00::7]:5557 or, to listen, tcp://*:5557.`,
    )
  }
  const host = parts[1] ?? parts[2] ?? ''
  return { host: host === '*' ? '' : host, port }
}

export function formatEndpoint({ host, port }: Endpoint): string {
  if (host === '') return `tcp://*:${port}`
  return host.includes(':') ? `tcp://[${host}]:${port}` : `tcp://${host}:${port}`
}
