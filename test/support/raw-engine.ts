import { createServer, type Socket } from 'node:net'
import type { AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'

export interface RawEngine {
  readonly url: string
  /** POST requests that reached it. */
  readonly requests: () => number
}

/**
 * An engine that answers health checks and model lists as it should, and every POST with the bytes that the test gives it,
 * which may be no HTTP at all.
 */
export async function rawEngine(t: TestContext, answer: (socket: Socket) => void, model = 'demo'): Promise<RawEngine> {
  let requests = 0
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => socket.destroy())
    let text = ''
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
      const end = text.indexOf('\r\n\r\n')
      if (end === -1) return
      const length = Number(/^content-length: (\d+)$/im.exec(text.slice(0, end))?.[1] ?? 0)
      if (text.length < end + 4 + length) return
      const line = text.slice(0, text.indexOf('\r\n'))
      text = text.slice(end + 4 + length)
      if (line.startsWith('POST /tokenize ')) socket.write('HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n')
      else if (line.startsWith('POST ')) {
        requests++
        answer(socket)
      } else {
        const known = line.startsWith('GET /health ') || line.startsWith('GET /v1/models ')
        const body = JSON.stringify({ object: 'list', data: [{ id: model, object: 'model', max_model_len: 4096 }] })
        socket.write(
          `HTTP/1.1 ${known ? '200 OK' : '404 Not Found'}\r\ncontent-type: application/json\r\n` +
            `content-length: ${body.length}\r\n\r\n${body}`,
        )
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests: () => requests }
}
