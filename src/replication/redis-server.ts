import { RedisFault } from './redis-fault.ts'
import { RedisConnection, type Command, type Reply } from './redis-connection.ts'
import type { Address, ConnectionLimits, Door, Login } from './redis-options.ts'

/** Opens connections to the server that holds our keys, wherever it is now. */
export class RedisServerFinder {
  readonly #door: Door
  readonly #limits: ConnectionLimits
  /** Any of our keys: all share one hash tag, so one node of a cluster holds them all. */
  readonly #anyKey: string
  #turn = 0

  constructor(door: Door, limits: ConnectionLimits, anyKey: string) {
    this.#door = door
    this.#limits = limits
    this.#anyKey = anyKey
  }

  /** Rejects with a RedisFault. */
  async find(): Promise<Address> {
    const { place } = this.#door
    switch (place.kind) {
      case 'server':
        return place.address
      case 'sentinel': {
        const node = this.#next(place.nodes)
        return masterOf(
          await this.#ask(node, place.login, [['SENTINEL', 'GET-MASTER-ADDR-BY-NAME', place.name]]),
          place.name,
        )
      }
      case 'cluster': {
        const node = this.#next(place.nodes)
        const asked = this.#ask(node, this.#door.login, [
          ['CLUSTER', 'KEYSLOT', this.#anyKey],
          ['CLUSTER', 'SLOTS'],
        ])
        return ownerOf(await asked, node)
      }
      default:
        return place satisfies never
    }
  }

  open(address: Address): Promise<RedisConnection> {
    return this.#open(address, this.#door.login)
  }

  /** The last find, or what it led to, was of no use: the next one asks another node. */
  mistrust(): void {
    this.#turn++
  }

  #next(nodes: readonly Address[]): Address {
    const node = nodes[this.#turn % nodes.length]
    if (node === undefined) throw new RedisFault('unreachable', 'no node is configured')
    return node
  }

  async #ask(node: Address, login: Login, commands: readonly Command[]): Promise<Reply[]> {
    const connection = await this.#open(node, login)
    try {
      return (await connection.sendAll(commands)).map((answer) => {
        if (answer instanceof RedisFault) throw answer
        return answer
      })
    } finally {
      connection.close()
    }
  }

  #open(address: Address, login: Login): Promise<RedisConnection> {
    return RedisConnection.open({ ...this.#limits, address, login, tls: this.#door.tls })
  }
}

/** [host, port], or nil. https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/ */
function masterOf([answer]: readonly Reply[], name: string): Address {
  if (!isList(answer)) throw new RedisFault('no_master', `the Sentinel knows no master "${name}"`)
  return { host: String(answer[0]), port: Number(String(answer[1])) }
}

/** Slot ranges as [first, last, [host, port, …] of the master, replicas…]. https://redis.io/docs/latest/commands/cluster-slots/ */
function ownerOf([slot, ranges]: readonly Reply[], asked: Address): Address {
  for (const range of isList(ranges) ? ranges : []) {
    const [first, last, master] = isList(range) ? range : []
    if (!isList(master) || Number(slot) < Number(first) || Number(slot) > Number(last)) continue
    const [host, port] = master
    // A node that does not know its own name gives none: it is where we asked.
    const known = host instanceof Buffer && host.length > 0 && host.toString() !== '?'
    return { host: known ? host.toString() : asked.host, port: Number(port) }
  }
  throw new RedisFault('cluster_down', `no node of the cluster serves slot ${Number(slot)}`)
}

export function isList(reply: Reply | undefined): reply is readonly Reply[] {
  return Array.isArray(reply)
}
