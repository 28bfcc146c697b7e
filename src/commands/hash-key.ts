import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { hashOfKey } from '../admission/api-keys.ts'
import { RouterError } from '../errors.ts'
import type { Command } from './command.ts'

const leastCharacters = 16
const generatedBytes = 32

export const hashKey: Command = {
  name: 'hash-key',
  summary: 'hash an API key for the config, or generate one',
  usage: `warmroute hash-key [--generate]

  Reads a key from standard input and prints the hash that the config holds in its place:
  at least ${leastCharacters} visible ASCII characters, since a hash does not protect a key that can be guessed.

  --generate       make a key of ${generatedBytes * 8} random bits and print it too; it is shown this once`,
  run(argv, io) {
    const { values } = parseArgs({
      args: [...argv],
      options: { generate: { type: 'boolean', default: false } },
    })
    const key = values.generate ? `wr-${randomBytes(generatedBytes).toString('base64url')}` : keyFromInput()
    if (values.generate) io.out(`key: ${key}`)
    io.out(`hash: ${hashOfKey(key)}`)
    return Promise.resolve(0)
  },
}

/** The line on standard input; messages about it never repeat it. */
function keyFromInput(): string {
  let key: string
  try {
    key = readFileSync(0, 'utf8').replace(/\r?\n$/, '')
  } catch (cause) {
    throw new RouterError(
      'CONFIG_UNREADABLE',
      `Cannot read a key from standard input: ${cause instanceof Error ? cause.message : String(cause)}`,
    )
  }
  if (key.length < leastCharacters || !/^[\x21-\x7e]+$/.test(key)) {
    throw new RouterError(
      'CONFIG_INVALID',
      `a key has at least ${leastCharacters} visible ASCII characters and no spaces, on one line; --generate makes a good one`,
    )
  }
  return key
}
