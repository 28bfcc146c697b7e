import { parentPort, workerData, type Transferable } from 'node:worker_threads'
import { scanBody, type ScannedBody } from './body.ts'
import { KeptBodies } from './kept-bodies.ts'
import { PromptTokenizers } from './prompts.ts'
import { promptSource, type PromptSource } from './prompt-source.ts'
import { requestFields } from './request.ts'
import {
  toSentError,
  type ThreadAnswer,
  type ThreadCommand,
  type ThreadJob,
  type TokensAnswer,
} from './thread-messages.ts'

/** Parsed bodies that wait for their second call, at most; the oldest go, and are sent again if they are still wanted. */
const keptBodiesBytes = 64 * 1024 * 1024

/** Share of the thread's cache budget for the bodies of conversations; a conversation's tokens and text take the larger one. */
const bodiesShare = 0.4

const port = parentPort
if (port === null) throw new Error('tokenize.thread is started as a worker thread only')
const { cacheBytes } = workerData as { cacheBytes: number }
const tokenizers = new PromptTokenizers(Math.floor(cacheBytes * (1 - bodiesShare)), true)
const bodies = new KeptBodies(Math.floor(cacheBytes * bodiesShare))
/** Their bytes may have been overwritten; what was parsed of them is wanted. */
const kept = new Map<number, ScannedBody>()
let keptBytes = 0
let loading: Promise<void> = Promise.resolve()

port.on('message', (command: ThreadCommand) => {
  if (command.kind === 'add') {
    // A failure shows on the first prompt for that tokenizer; thread 0 loaded the same files before and has reported it.
    loading = loading.then(() => tokenizers.add(command.name, command.source)).catch(() => undefined)
    return
  }
  if (command.kind === 'remove') {
    loading = loading.then(() => tokenizers.remove(command.name))
    return
  }
  void answer(command)
})

async function answer(command: ThreadJob): Promise<void> {
  let result: ThreadAnswer['result']
  const transfer: Transferable[] = []
  try {
    await loading
    result = command.kind === 'read' ? await read(command, transfer) : await tokens(command, transfer)
  } catch (error) {
    result = { kind: 'failed', error: toSentError(error) }
  }
  port?.postMessage(
    { job: command.job, result, cacheBytes: tokenizers.cacheBytes + bodies.bytes } satisfies ThreadAnswer,
    transfer,
  )
}

async function read(
  { job, body, names, pool, prompt }: Extract<ThreadCommand, { kind: 'read' }>,
  transfer: Transferable[],
): Promise<ThreadAnswer['result']> {
  const scanned = bodies.read(buffer(body), names)
  const fields = requestFields(scanned.value, prompt)
  const source = promptSource(scanned.value, prompt)
  // What is wrong with the prompt is told to the call that asks for its tokens.
  const early = pool === null ? null : await tokenized(pool, source, transfer).catch(() => null)
  if (early === null) keep(job, scanned)
  return { kind: 'read', fields, ranges: scanned.ranges, source: source.kind, tokens: early }
}

async function tokens(
  command: Extract<ThreadCommand, { kind: 'tokens' }>,
  transfer: Transferable[],
): Promise<ThreadAnswer['result']> {
  const scanned = command.body === null ? take(command.job) : scanBody(buffer(command.body))
  if (scanned === null) return { kind: 'gone' }
  return tokenized(command.name, promptSource(scanned.value, command.prompt), transfer)
}

async function tokenized(pool: string, source: PromptSource, transfer: Transferable[]): Promise<TokensAnswer> {
  const made = await tokenizers.tokens(pool, source)
  for (const { buffer } of made.prompts) if (buffer instanceof ArrayBuffer) transfer.push(buffer)
  return { ...made, kind: 'tokens' }
}

function buffer(body: Uint8Array): Buffer {
  return Buffer.from(body.buffer, body.byteOffset, body.byteLength)
}

function keep(job: number, scanned: ScannedBody): void {
  kept.set(job, scanned)
  keptBytes += scanned.bytes.length
  for (const oldest of kept.keys()) {
    if (keptBytes <= keptBodiesBytes || oldest === job) break
    take(oldest)
  }
}

function take(job: number): ScannedBody | null {
  const scanned = kept.get(job) ?? null
  if (scanned !== null) keptBytes -= scanned.bytes.length
  kept.delete(job)
  return scanned
}
