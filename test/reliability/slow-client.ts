import { connect } from 'node:net'
import { model } from '../support/fleet.ts'

/** A client that reads its stream so slowly that everything behind it fills up. */
export function slowReader(
  url: string,
  { content, bytesPerSecond }: { readonly content: string; readonly bytesPerSecond: number },
): { leave(): void } {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  const body = JSON.stringify({ model, stream: true, messages: [{ role: 'user', content }] })
  socket.on('error', () => undefined)
  socket.pause()
  socket.write(
    `POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
  const timer = setInterval(() => void socket.read(bytesPerSecond), 1000)
  return {
    leave(): void {
      clearInterval(timer)
      socket.destroy()
    },
  }
}

export interface SlowSending {
  /** Status of the answer; 0 where the connection just closed; null where it was still open when time was up. */
  readonly status: number | null
  readonly afterMs: number
}

/** Sends `at once`, then byte after byte of `slowly`, one each `everyMs`, until the other side has had enough. */
export function slowSender(
  url: string,
  { atOnce, slowly, everyMs, deadlineMs }: { atOnce: string; slowly: string; everyMs: number; deadlineMs: number },
): Promise<SlowSending> {
  const { hostname, port } = new URL(url)
  const startMs = performance.now()
  return new Promise((resolve) => {
    const socket = connect(Number(port), hostname)
    let answer = ''
    let sent = 0
    const end = (status: number | null): void => {
      clearInterval(timer)
      clearTimeout(deadline)
      socket.destroy()
      resolve({ status, afterMs: performance.now() - startMs })
    }
    const timer = setInterval(() => socket.write(slowly[sent++ % slowly.length] ?? 'x'), everyMs)
    const deadline = setTimeout(() => end(null), deadlineMs)
    socket.on('error', () => undefined)
    socket.on('data', (chunk) => (answer += chunk.toString('latin1')))
    socket.on('end', () => end(Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? 0)))
    socket.on('close', () => end(Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? 0)))
    socket.write(atOnce)
  })
}
