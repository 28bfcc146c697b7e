/**
 * The router as `serve` runs it, in front of one engine; its log goes to /dev/null.
 * Arguments: the engine's URL, a tokenizer's directory (`-` for the demo's), `keys`, `tls` or Redis' URL for what else is
 * on, and the admin port, where it has to be known.
 */
import { openSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { hashOfKey } from '../../src/admission/api-keys.ts'
import { checkConfig } from '../../src/config/load.ts'
import { startRouter } from '../../src/main.ts'
import { createLog } from '../../src/telemetry/log.ts'

const [, , url = '', tokenizer = '-', more = '', adminPort = ''] = process.argv
const place = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))
const generous = { requestsPerMinute: 1e9, tokensPerMinute: 1e12, concurrency: 1e6 }

const router = await startRouter(
  checkConfig({
    listen: {
      port: 0,
      ...(more === 'tls'
        ? { tls: { cert: place('test/fixtures/tls/server.pem'), key: place('test/fixtures/tls/server.key') } }
        : {}),
    },
    ...(adminPort === '' ? {} : { admin: { port: Number(adminPort) } }),
    ...(more.startsWith('redis:') ? { redis: { url: more }, keys: { secret: 'equal on all replicas' } } : {}),
    ...(more === 'keys'
      ? {
          apiKeys: Array.from({ length: 100 }, (_, i) => ({
            id: `key-${i}`,
            hash: hashOfKey(`bench-${i}`),
            ...generous,
          })),
          admission: { saturation: { requestsPerWorker: 100_000 } },
          forwarded: { trustedProxies: ['127.0.0.0/8'] },
        }
      : {}),
    pools: [
      {
        model: 'model',
        tokenizer: tokenizer === '-' ? place('config/tokenizers/demo') : tokenizer,
        workers: [{ url, blockSize: 16 }],
      },
    ],
  }),
  { log: createLog('info', openSync('/dev/null', 'w')) },
)
console.log(router.publicUrl)
