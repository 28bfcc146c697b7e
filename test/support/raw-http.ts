import { connect } from 'node:net'

export interface RawAnswer {
  readonly status: number
  readonly head: string
  readonly body: string
}

/** Sends bytes as they are on a connection of their own, and reads until the other side closes it. */
export function rawRequest(url: string, bytes: string | Buffer, deadlineMs = 5000): Promise<RawAnswer> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname)
    const chunks: Buffer[] = []
    const timer = setTimeout(
      () => socket.destroy(new Error(`no end within ${deadlineMs} ms: ${Buffer.concat(chunks).toString('latin1')}`)),
      deadlineMs,
    )
    socket.on('data', (chunk) => chunks.push(chunk))
    socket.on('error', (error: NodeJS.ErrnoException) => {
      // A server that refuses a request may reset the rest of it; what it said before counts.
      if (chunks.length === 0 || error.code !== 'ECONNRESET') reject(error)
    })
    socket.on('close', () => {
      clearTimeout(timer)
      const text = Buffer.concat(chunks).toString('utf8')
      const end = text.indexOf('\r\n\r\n')
      resolve({
        status: Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0),
        head: text.slice(0, end),
        body: text.slice(end + 4),
      })
    })
    socket.write(bytes)
  })
}
