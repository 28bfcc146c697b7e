/** The router as `serve` runs it, in front of one engine, with a tokenizer's directory if named; its log goes to /dev/null. */
import { openSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { checkConfig } from '../../src/config/load.ts'
import { startRouter } from '../../src/main.ts'
import { createLog } from '../../src/telemetry/log.ts'

const router = await startRouter(
  checkConfig({
    listen: { port: 0 },
    pools: [
      {
        model: 'model',
        tokenizer: process.argv[3] ?? fileURLToPath(new URL('../../config/tokenizers/demo', import.meta.url)),
        workers: [{ url: process.argv[2], blockSize: 16 }],
      },
    ],
  }),
  { log: createLog('info', openSync('/dev/null', 'w')) },
)
console.log(router.publicUrl)
