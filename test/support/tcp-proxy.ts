import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import type { TestContext } from 'node:test'

export interface TcpProxy {
  readonly port: number
  /** What the server sends arrives so much later; its order stays. */
  delay(ms: number): void
  /** Nothing passes either way, on connections old and new: what a network that is cut looks like. */
  freeze(): void
  /** What was held back passes. */
  thaw(): void
  /** Ends every connection with a reset. */
  cut(): void
}

/** A way to a server on this machine that can be made bad. It ends with the test. */
export async function tcpProxy(t: Pick<TestContext, 'after'>, port: number): Promise<TcpProxy> {
  let delayMs = 0
  let isFrozen = false
  const sockets = new Set<Socket>()
  const waiting: (() => void)[] = []
  const pass = (run: () => void, afterMs: number): void => {
    if (isFrozen) waiting.push(run)
    else if (afterMs > 0) setTimeout(() => pass(run, 0), afterMs)
    else run()
  }
  const join = (from: Socket, to: Socket, afterMs: () => number): void => {
    sockets.add(from)
    from.on('data', (chunk) => pass(() => to.write(chunk), afterMs()))
    from.on('error', () => undefined)
    from.on('close', () => {
      sockets.delete(from)
      pass(() => to.destroy(), afterMs())
    })
  }
  const server = createServer((client) => {
    const upstream = connect(port, '127.0.0.1')
    join(client, upstream, () => 0)
    join(upstream, client, () => delayMs)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address()
  assert.ok(address !== null && typeof address === 'object')
  return {
    port: address.port,
    delay: (ms) => (delayMs = ms),
    freeze: () => (isFrozen = true),
    thaw: () => {
      isFrozen = false
      for (const run of waiting.splice(0)) run()
    },
    cut: () => {
      for (const socket of sockets) socket.resetAndDestroy()
    },
  }
}
