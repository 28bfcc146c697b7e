import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { checkConfig } from '../../src/commands/check-config.ts'

const folder = fileURLToPath(new URL('../../config/', import.meta.url))

for (const file of readdirSync(folder).filter((name) => name.endsWith('.yaml'))) {
  test(`check-config takes config/${file}`, async () => {
    const printed: string[] = []
    const io = {
      out: (line: string) => printed.push(line),
      error: () => undefined,
      environment: {},
      ended: Promise.resolve(''),
      onHangup: () => undefined,
    }
    assert.equal(await checkConfig.run([`${folder}${file}`], io), 0)
    assert.ok(printed.length > 0)
  })
}
