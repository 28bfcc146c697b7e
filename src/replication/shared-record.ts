/**
 * What replicas tell each other beside what engines say: the load that each has in flight, the prompts that are on their
 * way, and which worker holds a response. No token ids, no text, and of a response id only a hash.
 *
 *     message   u8 version | u32 bytes that follow | 8 bytes replica | u48 counter | record …
 *     record    u8 kind | u32 bytes that follow | fields, and more in later versions
 *
 * All numbers are little-endian; a text is a u16 with its bytes and then these, in UTF-8. Messages may stand one behind
 * another. The first five bytes of each hold for every version, so that what a later one writes can be passed over.
 */
import { ByteReader } from './byte-reader.ts'
import { ByteWriter } from './byte-writer.ts'

export const sharedVersion = 1

/** Blocks of one prompt that are told; what comes behind them is not. */
export const mostPromptBlocks = 1024
/** Workers in one record of loads. */
export const mostLoadWorkers = 4096
/** A worker with a longer id is not shared. */
export const mostWorkerIdBytes = 1024

const sessionBytes = 8
const notTold = 0xffffffff

export interface SharedMessage {
  /** 16 hexadecimal digits, drawn anew by each process. */
  readonly replica: string
  /** Counts the replica's messages. */
  readonly counter: number
  readonly records: readonly SharedRecord[]
}

export type SharedRecord =
  | LoadRecord
  | PromptRecord
  | ComputedRecord
  | AnsweredRecord
  | EndedRecord
  | DispatchedRecord
  | FirstByteRecord
  | FinishedRecord
  | OwnerRecord
  | AnewRecord
  | ByeRecord

/** What the replica has in flight on one worker: whole figures, not what was added. */
export interface WorkerFigures {
  readonly worker: string
  readonly requests: number
  readonly sequences: number
  readonly prefillTokens: number
  readonly decodeBlocks: number
}

export interface LoadRecord {
  readonly kind: 'load'
  /** Whether there is nothing in flight on any other worker; else they are as they were. */
  readonly full: boolean
  readonly workers: readonly WorkerFigures[]
}

/** A prompt was sent to a worker. */
export interface PromptRecord {
  readonly kind: 'prompt'
  /** Names the prompt among those of its replica. */
  readonly number: number
  readonly worker: string
  /** Whether the replica assumes what the worker holds, for want of events. */
  readonly assumed: boolean
  readonly blockSize: number
  /** Leading blocks that the worker was thought to hold already. */
  readonly believedBlocks: number
  /** Which block of the prompt the first key names. */
  readonly firstBlock: number
  /** How long its prefill was predicted to take. */
  readonly predictedMs: number
  /** Two words a block. */
  readonly keys: Uint32Array
}

/** Its first token has come. */
export interface ComputedRecord {
  readonly kind: 'computed'
  readonly number: number
}

/** Its whole answer has come; the last record of this prompt. */
export interface AnsweredRecord {
  readonly kind: 'answered'
  readonly number: number
  /** Leading blocks that the engine found cached; null where it did not say. */
  readonly foundBlocks: number | null
}

/** It ended in another way; the last record of this prompt. */
export interface EndedRecord {
  readonly kind: 'ended'
  readonly number: number
}

/** A request was sent to a worker, as routing policies are told of it. */
export interface DispatchedRecord {
  readonly kind: 'dispatched'
  /** Names the request among those of its replica. */
  readonly number: number
  readonly worker: string
  readonly stream: boolean
  readonly promptTokens: number
  readonly uncachedTokens: number
  /** What loading the cached ones costs, in tokens of prefill. */
  readonly loadTokens: number
  readonly prefillTokensAhead: number
  readonly requestsAhead: number
  /** Name of the client's session, 16 hexadecimal digits; null without one. */
  readonly session: string | null
}

/** The first byte of its answer has come. */
export interface FirstByteRecord {
  readonly kind: 'firstByte'
  readonly number: number
  /** Since it was sent. */
  readonly ttftMs: number
}

/** It is over, in whatever way; the last record of this request. */
export interface FinishedRecord {
  readonly kind: 'finished'
  readonly number: number
}

/** The replica could say nothing for a while: of prompts and requests that it told of before nothing holds any more. */
export interface AnewRecord {
  readonly kind: 'anew'
}

export interface OwnerRecord {
  readonly kind: 'owner'
  /** 32 hexadecimal digits of a keyed hash of the response's id. */
  readonly response: string
  readonly worker: string
}

/** The replica stops: nothing of it is in flight any more. */
export interface ByeRecord {
  readonly kind: 'bye'
}

/** Why something was passed over. */
export type SkipReason = 'version' | 'kind' | 'malformed'

/** Kinds as they stand in the bytes; a number is never used again for something else. */
const kinds = {
  load: 1,
  prompt: 2,
  computed: 3,
  answered: 4,
  ended: 5,
  owner: 6,
  bye: 7,
  dispatched: 8,
  firstByte: 9,
  finished: 10,
  anew: 11,
} as const

export function encodeShared({ replica, counter, records }: SharedMessage): Buffer {
  const out = new ByteWriter()
  out.u8(sharedVersion)
  out.measured(() => {
    out.hex(replica)
    out.u48(counter)
    for (const record of records) {
      out.u8(kinds[record.kind])
      out.measured(() => writeFields(record, out))
    }
  })
  return out.done()
}

/** All messages in the bytes that can be read. Never throws; what it passes over it tells. */
export function decodeShared(bytes: Uint8Array, onSkipped: (reason: SkipReason) => void): SharedMessage[] {
  const messages: SharedMessage[] = []
  const all = new ByteReader(bytes)
  while (all.left > 0) {
    const message = attempt(() => {
      const version = all.u8()
      return { version, body: all.measured() }
    })
    if (message === null) {
      // Where the next one would begin cannot be known.
      onSkipped('malformed')
      break
    }
    if (message.version !== sharedVersion) {
      onSkipped('version')
      continue
    }
    const read = attempt(() => readMessage(message.body, onSkipped))
    if (read === null) onSkipped('malformed')
    else messages.push(read)
  }
  return messages
}

function readMessage(body: ByteReader, onSkipped: (reason: SkipReason) => void): SharedMessage {
  const replica = body.hex(8)
  const counter = body.u48()
  const records: SharedRecord[] = []
  while (body.left > 0) {
    const kind = body.u8()
    const fields = body.measured()
    const record = attempt(() => readFields(kind, fields))
    if (record === null) onSkipped('malformed')
    else if (record === undefined) onSkipped('kind')
    else records.push(record)
  }
  return { replica, counter, records }
}

function writeFields(record: SharedRecord, out: ByteWriter): void {
  switch (record.kind) {
    case 'load':
      out.u8(record.full ? 1 : 0)
      out.u16(record.workers.length)
      for (const { worker, requests, sequences, prefillTokens, decodeBlocks } of record.workers) {
        out.text(worker)
        for (const figure of [requests, sequences, prefillTokens, decodeBlocks]) out.u32(figure)
      }
      return
    case 'prompt': {
      const { number, worker, assumed, blockSize, believedBlocks, firstBlock, predictedMs, keys } = record
      out.u48(number)
      out.text(worker)
      out.u8(assumed ? 1 : 0)
      for (const figure of [blockSize, believedBlocks, firstBlock]) out.u32(figure)
      out.f64(predictedMs)
      const words = keys.subarray(0, 2 * mostPromptBlocks)
      out.u16(words.length / 2)
      out.words(words)
      return
    }
    case 'dispatched':
      out.u48(record.number)
      out.text(record.worker)
      out.u8(record.stream ? 1 : 0)
      out.u32(record.promptTokens)
      out.f64(record.uncachedTokens)
      out.f64(record.loadTokens)
      out.u32(record.prefillTokensAhead)
      out.u32(record.requestsAhead)
      if (record.session !== null) out.hex(record.session)
      return
    case 'firstByte':
      out.u48(record.number)
      out.f64(record.ttftMs)
      return
    case 'computed':
    case 'ended':
    case 'finished':
      out.u48(record.number)
      return
    case 'answered':
      out.u48(record.number)
      out.u32(record.foundBlocks ?? notTold)
      return
    case 'owner':
      out.hex(record.response)
      out.text(record.worker)
      return
    case 'anew':
    case 'bye':
      return
    default:
      record satisfies never
  }
}

/** Undefined for a kind that is not known. Fields behind those that are known belong to a later version. */
function readFields(kind: number, fields: ByteReader): SharedRecord | undefined {
  switch (kind) {
    case kinds.load:
      return readLoad(fields)
    case kinds.prompt:
      return readPrompt(fields)
    case kinds.computed:
      return { kind: 'computed', number: fields.u48() }
    case kinds.ended:
      return { kind: 'ended', number: fields.u48() }
    case kinds.dispatched:
      return {
        kind: 'dispatched',
        number: fields.u48(),
        worker: fields.text(mostWorkerIdBytes),
        stream: fields.u8() === 1,
        promptTokens: fields.u32(),
        uncachedTokens: positive(fields.f64()),
        loadTokens: positive(fields.f64()),
        prefillTokensAhead: fields.u32(),
        requestsAhead: fields.u32(),
        session: fields.left >= sessionBytes ? fields.hex(sessionBytes) : null,
      }
    case kinds.firstByte:
      return { kind: 'firstByte', number: fields.u48(), ttftMs: positive(fields.f64()) }
    case kinds.finished:
      return { kind: 'finished', number: fields.u48() }
    case kinds.anew:
      return { kind: 'anew' }
    case kinds.answered: {
      const number = fields.u48()
      const foundBlocks = fields.u32()
      return { kind: 'answered', number, foundBlocks: foundBlocks === notTold ? null : foundBlocks }
    }
    case kinds.owner:
      return { kind: 'owner', response: fields.hex(16), worker: fields.text(mostWorkerIdBytes) }
    case kinds.bye:
      return { kind: 'bye' }
    default:
      return undefined
  }
}

function readLoad(fields: ByteReader): LoadRecord {
  const full = fields.u8() === 1
  const count = fields.u16()
  if (count > mostLoadWorkers) throw new RangeError(`${count} workers`)
  const workers: WorkerFigures[] = []
  for (let i = 0; i < count; i++) {
    workers.push({
      worker: fields.text(mostWorkerIdBytes),
      requests: fields.u32(),
      sequences: fields.u32(),
      prefillTokens: fields.u32(),
      decodeBlocks: fields.u32(),
    })
  }
  return { kind: 'load', full, workers }
}

function readPrompt(fields: ByteReader): PromptRecord {
  const prompt = {
    kind: 'prompt',
    number: fields.u48(),
    worker: fields.text(mostWorkerIdBytes),
    assumed: fields.u8() === 1,
    blockSize: fields.u32(),
    believedBlocks: fields.u32(),
    firstBlock: fields.u32(),
    predictedMs: positive(fields.f64()),
  } as const
  const blocks = fields.u16()
  if (blocks > mostPromptBlocks) throw new RangeError(`${blocks} blocks`)
  return { ...prompt, keys: fields.words(2 * blocks) }
}

/** A number that is none, or below zero, is as good as bytes that are not there. */
function positive(figure: number): number {
  if (!(figure >= 0 && figure < Infinity)) throw new RangeError(`${figure}`)
  return figure
}

/** Null where the bytes end too early or hold what they may not. */
function attempt<Read>(read: () => Read): Read | null {
  try {
    return read()
  } catch (error) {
    if (error instanceof RangeError) return null
    throw error
  }
}
