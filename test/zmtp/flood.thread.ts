import { createServer } from 'node:net'
import { parentPort } from 'node:worker_threads'
import { encodeReady } from '../../src/zmtp/command.ts'
import { encodeMessage } from '../../src/zmtp/frame.ts'
import { encodeGreeting } from '../../src/zmtp/greeting.ts'

/** A publisher that sends messages of 32 KiB as fast as they are taken; tells its port. */
const message = encodeMessage([Buffer.from('topic'), Buffer.alloc(32 * 1024)])
const server = createServer((socket) => {
  const flood = (): void => {
    while (socket.write(message));
    socket.once('drain', flood)
  }
  socket.on('error', () => undefined)
  socket.write(encodeGreeting())
  socket.write(encodeReady('PUB', Buffer.alloc(0)))
  flood()
})
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (typeof address === 'object' && address !== null) parentPort?.postMessage(address.port)
})
