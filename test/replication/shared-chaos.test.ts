import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { UnderWay } from '../../src/map/sent-prompts.ts'
import type { Dispatch } from '../../src/routing/policy.ts'
import type { InFlight } from '../../src/workers/fleet.ts'
import { Chance } from '../support/fuzz.ts'
import { KvTree, slotOf } from '../support/kv-tree.ts'
import { Log, Replica, shareTtlMs } from '../support/replicas.ts'

const schedules = 300
const steps = 80
const workers = 3
const tree = new KvTree(9)
const prompts = Array.from({ length: 4 }, () => tree.keysOf(tree.growChain(6)))

interface Request {
  readonly dispatch: Dispatch
  readonly inFlight: InFlight
  readonly underWay: UnderWay
}

/** One replica with what came to it; killed and started anew it has another id, and none of its requests. */
class Process {
  replica: Replica
  requests: Request[] = []
  readonly #log: Log

  constructor(log: Log, id: number) {
    this.#log = log
    this.replica = this.#start(id)
  }

  restart(id: number): void {
    this.replica.kill()
    this.requests = []
    this.replica = this.#start(id)
  }

  send(chance: Chance): void {
    const slot = chance.below(workers)
    const keys = chance.pick(prompts)
    const inFlight = this.replica.send(slot, chance.below(200))
    const prompt = { slot: slotOf(slot), blockSize: 16, keys, believedBlocks: 0, capacityBlocks: null }
    const underWay = this.replica.sent.sent(prompt, chance.below(3000), this.#log.nowMs)
    const worker = [...this.replica.fleet.workers()][slot]
    if (worker !== undefined) this.requests.push({ inFlight, underWay, dispatch: this.replica.dispatch(worker) })
  }

  goOn(chance: Chance): void {
    const request = this.requests[chance.below(this.requests.length + 1)]
    if (request === undefined) return
    request.inFlight.prefilledTo(0)
    this.replica.state.dispatches.onFirstByte(request.dispatch, 5)
    this.replica.sent.computed(request.underWay, this.#log.nowMs)
    request.inFlight.generated(chance.below(100))
  }

  end(chance: Chance): void {
    const [request] = this.requests.splice(chance.below(this.requests.length + 1), 1)
    if (request === undefined) return
    request.inFlight.release()
    if (chance.oneIn(2)) this.replica.sent.answered(request.underWay, chance.below(96), this.#log.nowMs)
    this.replica.sent.ended(request.underWay)
    this.replica.finish(request.dispatch)
  }

  #start(id: number): Replica {
    const replica = new Replica(id.toString(16).padStart(16, '0'), this.#log, [0])
    for (let index = 0; index < workers; index++) replica.add(index)
    replica.state.up()
    return replica
  }
}

test('whatever is lost, doubled, late or killed, no sum is ever negative, and after quiet all are what is in flight', () => {
  for (let seed = 1; seed <= schedules; seed++) {
    const chance = new Chance(seed)
    const log = new Log()
    let nextId = 1
    const processes = Array.from({ length: 2 + chance.below(3) }, () => new Process(log, nextId++))
    const faults = { lost: 2 + chance.below(8), doubled: 2 + chance.below(8), late: 2 + chance.below(8) }
    log.fate = () => {
      if (chance.oneIn(faults.lost)) return []
      const lateMs = chance.oneIn(faults.late) ? chance.below(50) : 0
      return chance.oneIn(faults.doubled) ? [lateMs, chance.below(300)] : [lateMs]
    }
    const sound = (): void => {
      for (const { replica } of processes) {
        for (let slot = 0; slot < workers; slot++) {
          const own = replica.fleet.counters
          const [requests = -1, prefillTokens = -1, decodeBlocks = -1] = replica.figures(slot)
          assert.ok(requests >= own.requests(slot), `seed ${seed}: ${requests}`)
          assert.ok(prefillTokens >= own.prefillTokens(slot), `seed ${seed}: ${prefillTokens}`)
          assert.ok(decodeBlocks >= own.decodeBlocks(slot), `seed ${seed}: ${decodeBlocks}`)
        }
      }
    }
    for (let step = 0; step < steps; step++) {
      const process = chance.pick(processes)
      const { state } = process.replica
      if (chance.oneIn(30)) process.restart(nextId++)
      else if (chance.oneIn(30)) state.away()
      else if (chance.oneIn(15)) state.up()
      else chance.pick([() => process.send(chance), () => process.goOn(chance), () => process.end(chance)])()
      if (chance.oneIn(3)) log.pass(chance.below(chance.oneIn(10) ? 3000 : 30))
      sound()
    }
    // Quiet: Redis is there for all, nothing is lost, and so much time passes as a share lives.
    log.fate = () => [0]
    for (const { replica } of processes) replica.state.up()
    log.pass(shareTtlMs + 700)
    sound()
    const total = (slot: number): number =>
      processes.reduce((sum, { replica }) => sum + replica.fleet.counters.requests(slot), 0)
    for (const { replica } of processes) {
      for (let slot = 0; slot < workers; slot++) assert.equal(replica.figures(slot)[0], total(slot), `seed ${seed}`)
      assert.equal(replica.state.replicas().length, processes.length - 1, `seed ${seed}`)
    }
    for (const process of processes) while (process.requests.length > 0) process.end(chance)
    log.pass(shareTtlMs + 700)
    for (const { replica } of processes) {
      for (let slot = 0; slot < workers; slot++) assert.deepEqual(replica.figures(slot), [0, 0, 0], `seed ${seed}`)
    }
    log.pass(20_000)
    for (const { replica } of processes) {
      for (const keys of prompts)
        for (let slot = 0; slot < workers; slot++) assert.equal(replica.known(keys, slot)[1], 0, `seed ${seed}`)
    }
    const [last, ...others] = processes
    for (const { replica } of others) replica.kill()
    log.pass(shareTtlMs + 200)
    assert.equal(last?.replica.told.size, 0, `seed ${seed}`)
    assert.deepEqual(last.replica.state.followed, { prompts: 0, requests: 0 }, `seed ${seed}`)
  }
})
