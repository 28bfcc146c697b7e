import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import type { TestContext } from 'node:test'

/** A way to a server that keeps all bytes that clients sent it, a row for each connection. */
export async function recordingProxy(
  t: TestContext,
  targetPort: number,
): Promise<{ readonly port: number; readonly sent: () => Buffer[] }> {
  const rows: Buffer[][] = []
  const sockets = new Set<Socket>()
  const server = createServer((client) => {
    const row: Buffer[] = []
    rows.push(row)
    const target = connect(targetPort, '127.0.0.1')
    for (const socket of [client, target]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => [client, target].forEach((either) => either.destroy()))
    }
    client.on('data', (bytes: Buffer) => row.push(bytes))
    client.pipe(target).pipe(client)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port')
  return { port: address.port, sent: () => rows.map((row) => Buffer.concat(row)) }
}
