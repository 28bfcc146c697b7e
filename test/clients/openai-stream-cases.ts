import {
  chat,
  chatBegun,
  chatStream,
  completionBegun,
  responsesBegun,
  responsesBody,
  responsesStream,
  text,
} from './bodies.ts'
import type { Case, OpenAiApi } from './case.ts'
import { first, json, stream } from './wire.ts'

const good: Case<OpenAiApi>[] = [
  {
    name: 'a good answer has its request id, whatever the engine says',
    api: 'chat',
    answer: json(200, chat, { 'x-request-id': 'theirs' }),
    expected: { text, identified: true },
  },
  {
    name: 'a good response has its request id',
    api: 'responses',
    answer: json(200, responsesBody),
    expected: { text },
  },
  {
    name: 'a stream with comments, CRLF and one byte a segment is read',
    api: 'chatStream',
    answer: stream(`: ping\n\n:\n\n${chatStream.replace('Hel', 'Grüße 👩‍🔬 ').replaceAll('\n', '\r\n')}`, 'close', {
      bytesAtOnce: 1,
    }),
    expected: { text: 'Grüße 👩‍🔬 lo' },
  },
  {
    name: 'what follows [DONE] is not read',
    api: 'chatStream',
    answer: stream(`${chatStream}data: [DONE]\n\ndata: rest\n\nrest`),
    expected: { text },
  },
  {
    name: '[DONE] ends a stream at once, though the engine leaves the connection open',
    api: 'chatStream',
    answer: stream(chatStream, 'stayOpen'),
    expected: { text },
  },
  {
    name: 'a response stream ends with its last event, though the engine leaves the connection open',
    api: 'responsesStream',
    answer: stream(responsesStream, 'stayOpen'),
    expected: { text },
  },
]

const failure = { error: { message: 'The engine says 500', type: 'EngineError', param: null, code: 500 } }
const death = { kind: 'APIError', code: 'upstream_died' }

const cuts: Case<OpenAiApi>[] = [
  {
    name: 'a chat stream that ends without [DONE] is raised as cut',
    api: 'chatStream',
    answer: stream(chatBegun),
    expected: { text: 'Hel', error: { ...death, message: 'before it was complete' } },
  },
  {
    name: 'a chat stream whose connection breaks is raised as cut',
    api: 'chatStream',
    answer: stream(chatBegun, 'destroy'),
    expected: { text: 'Hel', error: { ...death, message: 'died while answering' } },
  },
  {
    name: 'a chat stream that breaks within an event is raised as cut, and never as bad JSON',
    api: 'chatStream',
    answer: stream(`${chatBegun}data: {"id":"chatc`, 'destroy'),
    expected: { text: 'Hel', error: { ...death, message: 'died while answering' } },
  },
  {
    name: 'a completion stream that ends without [DONE] is raised as cut',
    api: 'completionStream',
    answer: stream(completionBegun),
    expected: { text: 'Hel', error: { ...death, message: 'before it was complete' } },
  },
  {
    name: 'a response stream that ends without its last event is raised as cut',
    api: 'responsesStream',
    answer: stream(responsesBegun),
    expected: { text: 'Hel', error: { kind: 'APIError', message: 'before it was complete' } },
  },
  {
    name: 'a response stream whose connection breaks is raised as cut',
    api: 'responsesStream',
    answer: stream(responsesBegun, 'destroy'),
    expected: { text: 'Hel', error: { kind: 'APIError', message: 'died while answering' } },
  },
  {
    name: 'a stream that ends before its first event is a 502 that clients try again',
    api: 'chatStream',
    answer: first(stream(''), stream(chatStream)),
    expected: { tries: 2, text },
  },
  {
    name: 'an error event of an engine within a stream is raised',
    api: 'chatStream',
    answer: stream(`${chatBegun}data: ${JSON.stringify(failure)}\n\ndata: [DONE]\n\n`),
    expected: { text: 'Hel', error: { message: 'The engine says 500', code: '500' } },
  },
  {
    name: 'an error event of an engine that begins a stream is raised',
    api: 'chatStream',
    answer: stream(`data: ${JSON.stringify(failure)}\n\ndata: [DONE]\n\n`),
    expected: { text: '', error: { message: 'The engine says 500', code: '500' } },
  },
]

const leaving: Case<OpenAiApi>[] = [
  {
    name: 'a client that leaves its stream is let go',
    api: 'chatStream',
    answer: stream(chatBegun, 'stayOpen'),
    leaves: true,
    expected: { text: 'Hel' },
  },
  {
    name: 'a client whose time is up is let go',
    api: 'chat',
    answer: () => undefined,
    timeoutMs: 300,
    // A try that is given up before it was read on a slow machine does not reach the engine.
    expected: { tries: null, error: { status: null, message: 'timed out' } },
  },
]

/** What clients of OpenAI's API make of good answers, and of streams however they end. */
export const openAiStreamCases: readonly Case<OpenAiApi>[] = [...good, ...cuts, ...leaving]
