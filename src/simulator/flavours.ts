import type { FlavourKind } from './flavour.ts'
import { sglangKind } from './flavours/sglang.ts'
import { trtllmKind } from './flavours/trtllm.ts'
import { vllmKind } from './flavours/vllm.ts'

/** Every kind of engine that can be simulated, by its name in `simulate --engine`; the first is the default. */
export const flavours: Readonly<Record<string, FlavourKind>> = {
  vllm: vllmKind,
  sglang: sglangKind,
  trtllm: trtllmKind,
}
