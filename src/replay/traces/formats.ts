import { agenticFormat } from './agentic.ts'
import { decisionsFormat } from './decisions.ts'
import type { TraceFormat } from './format.ts'
import { mooncakeFormat } from './mooncake.ts'
import { plainFormat } from './plain.ts'

/** Every format. A new one adds a file and a line here. */
export const traceFormats: readonly TraceFormat[] = [agenticFormat, mooncakeFormat, plainFormat, decisionsFormat]
