import type { AddressInfo } from 'node:net'
import { Server as TlsServer } from 'node:tls'
import type { FastifyInstance } from 'fastify'
import { RouterError } from '../errors.ts'

/** Opens the port; the answer is its URL. Throws RouterError PORT_IN_USE, which names the option to change. */
export async function listen(app: FastifyInstance, host: string, port: number, option: string): Promise<string> {
  try {
    await app.listen({ host, port })
  } catch (cause) {
    const { code } = cause as { code?: string }
    if (code !== 'EADDRINUSE' && code !== 'EACCES' && code !== 'EADDRNOTAVAIL' && code !== 'ENOTFOUND') throw cause
    throw new RouterError('PORT_IN_USE', `Cannot listen on ${host}:${port} (${option}): ${code}; choose another one`, {
      cause,
    })
  }
  const address = app.server.address() as AddressInfo
  const scheme = app.server instanceof TlsServer ? 'https' : 'http'
  return `${scheme}://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`
}

/** Takes no new connection, lets running answers finish, and cuts what is left after the grace time. */
export async function drain(app: FastifyInstance, graceMs: number): Promise<void> {
  const closed = app.close()
  // A connection whose answer ends from now on is kept alive by its client and would hold up the end.
  const idle = setInterval(() => app.server.closeIdleConnections(), 20)
  const cut = setTimeout(() => app.server.closeAllConnections(), graceMs)
  await closed
  clearInterval(idle)
  clearTimeout(cut)
}
