import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export interface Engines {
  readonly urls: readonly string[]
  stop(): Promise<void>
}

/** What the engines' process says once: where its engines are, or why it cannot start them. */
export type EnginesMessage = { readonly urls: readonly string[] } | { readonly fault: string }

/**
 * Starts the scenario's simulated engines with empty caches, in a process of their own: they take no time from the
 * router's event loop. It ends with this process, however that ends.
 */
export async function startEngines(): Promise<Engines> {
  const child = fork(fileURLToPath(new URL('engines.process.ts', import.meta.url)))
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
  const message = await Promise.race([
    new Promise<EnginesMessage>((resolve) => child.once('message', (value) => resolve(value as EnginesMessage))),
    exited.then((code): EnginesMessage => ({ fault: `their process ended with code ${code ?? 'none'}` })),
  ])
  if ('fault' in message) throw new Error(`The simulated engines could not be started: ${message.fault}`)
  return {
    urls: message.urls,
    async stop() {
      if (child.connected) child.disconnect()
      await exited
    },
  }
}
