import OpenAI from 'openai6'
import type OpenAI7 from 'openai'
import { probeOpenAi } from './openai-probe.ts'
import type { Asked } from './probe-process.ts'

/** The probe as a process of its own, for a Node that knows no types: cases on standard input, outcomes on standard output. */
const chunks: Buffer[] = []
for await (const chunk of process.stdin) chunks.push(chunk as Buffer)
const { baseURL, requests } = JSON.parse(Buffer.concat(chunks).toString()) as Asked
// What the probe uses of it is the same in both versions.
const client = new OpenAI({ baseURL, apiKey: 'any' }) as unknown as OpenAI7
process.stdout.write(JSON.stringify(await Promise.all(requests.map((request) => probeOpenAi(client, request)))))
