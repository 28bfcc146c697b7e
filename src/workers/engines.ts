import type { Engine } from './engine.ts'
import { openai } from './engines/openai.ts'
import { sglang } from './engines/sglang.ts'
import { trtllm } from './engines/trtllm.ts'
import { vllm } from './engines/vllm.ts'

/** Every kind of engine that the router knows, by the name used in the config. */
export const engines: Readonly<Record<string, Engine>> = { vllm, sglang, trtllm, openai }
