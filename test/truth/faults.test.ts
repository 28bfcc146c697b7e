// Engines that do other than they are believed to, alone and in pairs: each fault is named within 100 requests.
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { createKeyMaker, type KeyMaker } from '../../src/kv/keys.ts'
import type { Misreport } from '../../src/simulator/misreport.ts'
import { seededRandom } from '../support/random.ts'
import { TruthRig, type RigRequest } from '../support/truth-rig.ts'

let keys: KeyMaker
before(async () => {
  keys = await createKeyMaker(Buffer.from('a secret'))
})

/** A template that begins chats with other tokens than ours. */
const otherBeginning = (tokens: Uint32Array): Uint32Array => Uint32Array.from([9, 9, 9, 9, 9, 9, ...tokens])
/** One that differs in the middle only. */
const otherMiddle = (tokens: Uint32Array): Uint32Array =>
  tokens.length < 80 ? tokens : Uint32Array.from([...tokens.subarray(0, 72), 9, ...tokens.subarray(72)])

interface Fault {
  readonly misreport?: readonly Misreport[]
  readonly template?: (tokens: Uint32Array) => Uint32Array
  readonly causes: readonly string[]
}

const faults: Readonly<Record<string, Fault>> = {
  'a salt that is ignored': { misreport: ['salt-ignored'], causes: ['salt'] },
  'a salt that events do not tell': { misreport: ['salt-untold'], causes: ['salt'] },
  'adapters that are only numbered': { misreport: ['lora-numbered'], causes: ['lora'] },
  'adapters under other names': { misreport: ['lora-renamed'], causes: ['lora'] },
  'blocks of another size than announced': { misreport: ['block-size'], causes: ['block_size'] },
  'silent events': { misreport: ['silent'], causes: ['events_silent'] },
  'a template that begins otherwise': { template: otherBeginning, causes: ['template'] },
  'a template that differs in the middle': { template: otherMiddle, causes: ['template'] },
}
const names = Object.keys(faults)
/** Silence is believed after a while only. */
const waits: ReadonlySet<string> = new Set(['events_silent'])
/** What is not heard, or cannot be read at all, hides what it would have told. */
const hiding = ['silent events', 'blocks of another size than announced']

for (const reports of [true, false]) {
  const of = reports ? '' : ', of an engine that reports no cached tokens'
  for (const [at, name] of names.entries()) {
    test(`${name}${of}`, () => check([name], reports))
    for (const other of names.slice(at + 1)) {
      const both = [name, other].map((each) => faults[each] as Fault)
      if (both.every(({ template }) => template !== undefined)) continue
      test(`${name}, and ${other}${of}`, () => check([name, other], reports))
    }
  }
}

for (const reports of [true, false]) {
  for (const name of names) {
    const of = reports ? '' : ', of an engine that reports no cached tokens'
    test(`${name}, in a cache that is always full${of}`, () => check([name], reports, 500))
  }
}

function check(named: readonly string[], reports: boolean, capacityBlocks = 2000): void {
  const random = seededRandom(named.join().length)
  const chosen = named.map((name) => faults[name] as Fault)
  const template = chosen.find((fault) => fault.template !== undefined)?.template
  const rig = new TruthRig({
    keys,
    random,
    reports,
    eventDelayMs: 20,
    engine: { capacityBlocks },
    misreport: chosen.flatMap(({ misreport = [] }) => misreport),
    ...(template === undefined ? {} : { template }),
  })
  // What others have left there is evicted all the time.
  for (let sent = 0; capacityBlocks < 2000 && sent < 100; sent++) {
    rig.foreign(Uint32Array.from({ length: 200 }, (_, at) => 50_000 + sent * 300 + at))
    rig.run(60)
  }
  const hidden = hiding.find((name) => named.includes(name))
  const wanted = (hidden === undefined ? chosen : [faults[hidden] as Fault]).flatMap(({ causes }) => causes)
  // A third each is salted, of an adapter, and plain.
  for (let sent = 0; sent < 100; sent++) {
    rig.send(requestOf(random, sent))
    if (capacityBlocks < 2000) rig.foreign(Uint32Array.from({ length: 64 }, (_, at) => 90_000 + sent * 100 + at))
    rig.run(60)
    if (wanted.every((cause) => rig.causes.includes(cause))) break
  }
  assert.ok(
    wanted.every((cause) => rig.causes.includes(cause) || waits.has(cause)),
    `within 100 requests: ${rig.causes.join()}`,
  )
  rig.run(8000)
  const found = rig.causes.filter((cause) => cause !== 'details_off')
  for (const cause of wanted) assert.ok(found.includes(cause), `${cause} is among ${found.join()}`)
  const unexpected = found.filter((cause) => !chosen.some(({ causes }) => causes.includes(cause)))
  assert.deepEqual(unexpected, [], 'nothing else is blamed')
}

/** A turn of one of some conversations: fresh prompts and repeated ones. */
function requestOf(random: () => number, sent: number): RigRequest {
  const conversation = Math.floor(random() * 12)
  const tokens = Uint32Array.from({ length: 100 + Math.floor(random() * 200) }, (_, at) =>
    // Chats begin with what their template puts there.
    at < 20 ? at + (conversation % 2 === 0 ? 500 : 0) : 1000 + ((conversation * 7919 + at * 31) % 30_000),
  )
  return {
    tokens,
    outputTokens: 4,
    chat: conversation % 2 === 0,
    ...(sent % 3 === 0 ? { salt: `tenant ${conversation % 2}` } : {}),
    ...(sent % 3 === 1 ? { adapter: 'sql' } : {}),
  }
}
